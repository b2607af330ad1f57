package probe

import (
	"bufio"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"io"
	"net"
	"net/http"
	"strings"
)

// exchange writes one request and reads the whole answer, so that a broken body is seen too.
func exchange(conn net.Conn, req *http.Request) error {
	if err := req.Write(conn); err != nil {
		return err
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return &Status{Code: answer.StatusCode, Message: firstLine(body)}
	}
	return nil
}

func firstLine(body []byte) string {
	line := strings.Join(strings.Fields(string(body)), " ")
	return line[:min(len(line), 200)]
}

// short is the beginning of a certificate's SHA-256 fingerprint.
func short(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:6])
}
