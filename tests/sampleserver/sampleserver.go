// Package sampleserver puts a real aggregated API server on a test cluster: Kubernetes' sample (./build makes
// its image), which takes users' names from whoever the front proxy's authority certifies, as every one does.
//
// Invariants:
//   - Its serving certificate and the authority of that are its own: they are no part of any rotation.
//   - Everything is in the namespace certrotation-test-sample, or named after certrotation-test.
package sampleserver

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	_ "embed"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"certrotation.dev/tests/fixture"
)

var (
	//go:embed server.yaml
	server string
	//go:embed apiservice.yaml
	service string
)

const (
	Namespace  = "certrotation-test-sample"
	APIService = "v1alpha1.wardle.example.com"
	Port       = "8443"
	// Path is an object that the server keeps, which every credential of the probes may read.
	Path = collection + "/probe"
	// User is somebody who may read Path, by name alone.
	User = "system:serviceaccount:" + fixture.Namespace + ":prober"

	collection = "/apis/wardle.example.com/v1alpha1/namespaces/" + Namespace + "/flunders"
	object     = `{"apiVersion": "wardle.example.com/v1alpha1", "kind": "Flunder", "metadata": {"name": "probe"}}`
	validity   = 24 * time.Hour
)

// Deploy brings it up, and returns when the cluster's API serves its object. Its etcd is of an image that is on the nodes.
func Deploy(ctx context.Context, c *fixture.Cluster) error {
	if _, err := c.Client.CoreV1().Secrets(Namespace).Get(ctx, "serving", metav1.GetOptions{}); apierrors.IsNotFound(err) {
		if err := apply(ctx, c); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	if _, err := c.Kubectl.Run(ctx, "wait", "--for=condition=Available", "apiservice/"+APIService, "--timeout=120s"); err != nil {
		status, _ := c.Kubectl.Run(ctx, "get", "apiservice/"+APIService, "-o", "jsonpath={.status.conditions[*].message}")
		return fmt.Errorf("%w; the APIService says %q", err, status)
	}
	err := c.Client.CoreV1().RESTClient().Post().AbsPath(collection).SetHeader("Content-Type", "application/json").Body([]byte(object)).Do(ctx).Error()
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// apply makes it all, once: a second serving certificate would be believed before it is in use.
func apply(ctx context.Context, c *fixture.Cluster) error {
	image, err := etcdImage(ctx, c)
	if err != nil {
		return err
	}
	authority, certificate, key, err := serving()
	if err != nil {
		return err
	}
	filled := strings.NewReplacer("image: ETCD_IMAGE", "image: "+image, "tls.crt: CERTIFICATE", "tls.crt: "+certificate, "tls.key: KEY", "tls.key: "+key).Replace(server)
	if _, err := c.Kubectl.Apply(ctx, []byte(filled)); err != nil {
		return err
	}
	for _, name := range []string{"etcd", "apiserver"} {
		if _, err := c.Kubectl.Run(ctx, "-n", Namespace, "rollout", "status", "deployment/"+name, "--timeout=180s"); err != nil {
			return err
		}
	}
	_, err = c.Kubectl.Apply(ctx, []byte(strings.Replace(service, "caBundle: CA", "caBundle: "+authority, 1)))
	return err
}

// etcdImage is what the control plane itself runs.
func etcdImage(ctx context.Context, c *fixture.Cluster) (string, error) {
	list, err := c.Client.CoreV1().Pods("kube-system").List(ctx, metav1.ListOptions{LabelSelector: "component=etcd"})
	if err != nil {
		return "", err
	}
	if len(list.Items) == 0 {
		return "", fmt.Errorf("no pod of kube-system is etcd's")
	}
	return list.Items[0].Spec.Containers[0].Image, nil
}

// serving makes an authority and a certificate for the Service, in base64 of PEM.
func serving() (authority, certificate, key string, err error) {
	encode := func(kind string, der []byte) string {
		return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	authorityKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", "", err
	}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", "", err
	}
	name := "apiserver." + Namespace + ".svc"
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "certrotation-test:sample"}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(validity)}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, NotBefore: root.NotBefore, NotAfter: root.NotAfter}
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, &authorityKey.PublicKey, authorityKey)
	if err != nil {
		return "", "", "", err
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, root, &leafKey.PublicKey, authorityKey)
	if err != nil {
		return "", "", "", err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(leafKey)
	return encode("CERTIFICATE", rootDER), encode("CERTIFICATE", leafDER), encode("PRIVATE KEY", keyDER), err
}

// Addresses are where the server's pods answer, host:port; those that end are left out.
func Addresses(ctx context.Context, c *fixture.Cluster) ([]string, error) {
	list, err := c.Client.CoreV1().Pods(Namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=apiserver"})
	if err != nil {
		return nil, err
	}
	var addresses []string
	for _, p := range list.Items {
		if p.DeletionTimestamp == nil && p.Status.PodIP != "" {
			addresses = append(addresses, p.Status.PodIP+":"+Port)
		}
	}
	if len(addresses) == 0 {
		return nil, fmt.Errorf("no pod of deployment %s/apiserver runs", Namespace)
	}
	return addresses, nil
}
