package main

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"
)

// serve answers the API server on :8443, as a webhook, as a conversion and as an aggregated API server:
// it allows everything, converts by changing the version, and has an API without resources. The
// certificate is read at each handshake, and each call is a handshake of its own.
func serve() int {
	pair := func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		c, err := tls.LoadX509KeyPair("/tls/tls.crt", "/tls/tls.key")
		return &c, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/admit", admit)
	mux.HandleFunc("/convert", convert)
	mux.HandleFunc("/apis/", resources)
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	server := &http.Server{Addr: ":8443", Handler: mux, ReadHeaderTimeout: 5 * time.Second,
		TLSConfig: &tls.Config{GetCertificate: pair, MinVersion: tls.VersionTLS12}}
	server.SetKeepAlivesEnabled(false)
	fmt.Fprintln(os.Stderr, "workload:", server.ListenAndServeTLS("", ""))
	return 1
}

func answer(w http.ResponseWriter, object any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(object); err != nil {
		fmt.Fprintln(os.Stderr, "workload:", err)
	}
}

// review is the part of an AdmissionReview or a ConversionReview that matters here.
type review struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Request    struct {
		UID               string           `json:"uid"`
		DesiredAPIVersion string           `json:"desiredAPIVersion"`
		Objects           []map[string]any `json:"objects"`
	} `json:"request"`
}

func read(w http.ResponseWriter, r *http.Request) (review, bool) {
	var asked review
	err := json.NewDecoder(r.Body).Decode(&asked)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
	}
	return asked, err == nil
}

func admit(w http.ResponseWriter, r *http.Request) {
	if asked, ok := read(w, r); ok {
		answer(w, map[string]any{"apiVersion": asked.APIVersion, "kind": asked.Kind,
			"response": map[string]any{"uid": asked.Request.UID, "allowed": true}})
	}
}

func convert(w http.ResponseWriter, r *http.Request) {
	asked, ok := read(w, r)
	if !ok {
		return
	}
	for _, object := range asked.Request.Objects {
		object["apiVersion"] = asked.Request.DesiredAPIVersion
	}
	answer(w, map[string]any{"apiVersion": asked.APIVersion, "kind": asked.Kind, "response": map[string]any{"uid": asked.Request.UID,
		"result": map[string]any{"status": "Success"}, "convertedObjects": asked.Request.Objects}})
}

func resources(w http.ResponseWriter, r *http.Request) {
	answer(w, map[string]any{"apiVersion": "v1", "kind": "APIResourceList", "resources": []any{},
		"groupVersion": strings.Trim(strings.TrimPrefix(r.URL.Path, "/apis/"), "/")})
}
