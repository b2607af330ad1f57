package access

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// PEM encodes a certificate.
func PEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// ClientCertificate asks the cluster's signer for a client certificate, as a user would: a
// CertificateSigningRequest for kubernetes.io/kube-apiserver-client, approved, then signed by the
// controller-manager. The key is made here and stays here.
func ClientCertificate(ctx context.Context, client kubernetes.Interface, subject pkix.Name, validity time.Duration) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: subject}, key)
	if err != nil {
		return nil, err
	}
	issued, err := sign(ctx, client, request, validity)
	if err != nil {
		return nil, fmt.Errorf("client certificate for %s: %w", subject.CommonName, err)
	}
	chain, err := Certificates(issued)
	if err != nil || len(chain) == 0 {
		return nil, fmt.Errorf("client certificate for %s: the signer gave %d bytes without a certificate: %v", subject.CommonName, len(issued), err)
	}
	pair := &tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, c := range chain {
		pair.Certificate = append(pair.Certificate, c.Raw)
	}
	return pair, nil
}

func sign(ctx context.Context, client kubernetes.Interface, request []byte, validity time.Duration) ([]byte, error) {
	requests := client.CertificatesV1().CertificateSigningRequests()
	seconds := int32(validity.Seconds())
	csr, err := requests.Create(ctx, &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "certrotation-test-"},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request:           pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request}),
			SignerName:        certificatesv1.KubeAPIServerClientSignerName,
			Usages:            []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth},
			ExpirationSeconds: &seconds,
		}}, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	csr.Status.Conditions = append(csr.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
		Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "Test", Message: "approved by the test"})
	if csr, err = requests.UpdateApproval(ctx, csr.Name, csr, metav1.UpdateOptions{}); err != nil {
		return nil, err
	}
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for len(csr.Status.Certificate) == 0 {
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%s is not signed: %w", csr.Name, ctx.Err())
		case <-ticker.C:
		}
		if csr, err = requests.Get(ctx, csr.Name, metav1.GetOptions{}); err != nil {
			return nil, err
		}
		for _, c := range csr.Status.Conditions {
			if c.Type == certificatesv1.CertificateFailed || c.Type == certificatesv1.CertificateDenied {
				return nil, fmt.Errorf("%s: %s: %s", csr.Name, c.Reason, c.Message)
			}
		}
	}
	return csr.Status.Certificate, nil
}

// Token asks for a bound token of a ServiceAccount.
func Token(ctx context.Context, client kubernetes.Interface, namespace, name string, validity time.Duration) (string, error) {
	seconds := int64(validity.Seconds())
	answer, err := client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, name,
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("token of %s/%s: %w", namespace, name, err)
	}
	return answer.Status.Token, nil
}

// ClientCertificatePEM is ClientCertificate for who needs files: certificate and key as PEM.
func ClientCertificatePEM(ctx context.Context, client kubernetes.Interface, name, group string) (certificate, key []byte, err error) {
	pair, err := ClientCertificate(ctx, client, pkix.Name{CommonName: name, Organization: []string{group}}, 24*time.Hour)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		return nil, nil, err
	}
	return PEM(pair.Leaf), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// WriteKubeconfig writes a kubeconfig that holds everything itself.
func WriteKubeconfig(file string, config *rest.Config) error {
	out := clientcmdapi.NewConfig()
	out.Clusters["cluster"] = &clientcmdapi.Cluster{Server: config.Host, CertificateAuthorityData: config.CAData}
	out.AuthInfos["user"] = &clientcmdapi.AuthInfo{ClientCertificateData: config.CertData, ClientKeyData: config.KeyData, Token: config.BearerToken}
	out.Contexts["test"] = &clientcmdapi.Context{Cluster: "cluster", AuthInfo: "user"}
	out.CurrentContext = "test"
	return clientcmd.WriteToFile(*out, file)
}
