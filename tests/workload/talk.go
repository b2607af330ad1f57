package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// client holds what a client of the API keeps for its life.
type client struct {
	config    *rest.Config
	namespace string
	period    time.Duration
}

// settings reads the in-cluster configuration; the CA is read now and never again, as most clients do.
// WORKLOAD_PER_SECOND is how many new connections a second, 4 if absent.
func settings() (*client, error) {
	config, err := rest.InClusterConfig()
	if err != nil {
		return nil, err
	}
	if config.CAData, err = os.ReadFile(config.CAFile); err != nil {
		return nil, err
	}
	config.CAFile = ""
	config.QPS = -1
	config.Timeout = 0
	rate := 4.0
	if text := os.Getenv("WORKLOAD_PER_SECOND"); text != "" {
		if rate, err = strconv.ParseFloat(text, 64); err != nil || rate <= 0 || rate > 100 {
			return nil, fmt.Errorf("WORKLOAD_PER_SECOND is %q; it must be a number above 0, at most 100", text)
		}
	}
	namespace, err := os.ReadFile("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
	return &client{config: config, namespace: string(namespace), period: time.Duration(float64(time.Second) / rate)}, err
}

// fresh is a client that shares no connection with any other.
func (c *client) fresh() (*kubernetes.Clientset, func(), error) {
	settings, err := rest.TLSConfigFor(c.config)
	if err != nil {
		return nil, nil, err
	}
	transport := &http.Transport{TLSClientConfig: settings}
	wrapped, err := rest.HTTPWrappersForConfig(c.config, transport)
	if err != nil {
		return nil, nil, err
	}
	set, err := kubernetes.NewForConfigAndClient(c.config, &http.Client{Transport: wrapped})
	return set, transport.CloseIdleConnections, err
}

// talk goes on until ctx ends; a call that is under way then is finished.
func (c *client) talk(ctx context.Context, count *counts) {
	var all sync.WaitGroup
	all.Add(1)
	go func() { defer all.Done(); c.keepWatch(ctx, count) }()
	ticker := time.NewTicker(c.period)
	defer ticker.Stop()
	for ctx.Err() == nil {
		all.Add(1)
		go func() { defer all.Done(); c.call(count) }()
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
	all.Wait()
}

func (c *client) call(count *counts) {
	ctx, cancel := context.WithTimeout(context.Background(), 25*time.Second)
	defer cancel()
	started := time.Now()
	set, done, err := c.fresh()
	if err == nil {
		defer done()
		_, err = set.CoreV1().ConfigMaps(c.namespace).Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
	}
	if err != nil {
		count.failed("get", err)
		return
	}
	count.served(time.Since(started))
}

// keepWatch opens the watch again when it ends; an end that was no error is the server's right.
func (c *client) keepWatch(ctx context.Context, count *counts) {
	for ctx.Err() == nil {
		if err := c.watchOnce(ctx, count); err != nil && ctx.Err() == nil {
			count.failed("watch", err)
			select {
			case <-ctx.Done():
			case <-time.After(250 * time.Millisecond):
			}
		}
	}
}

func (c *client) watchOnce(ctx context.Context, count *counts) error {
	set, done, err := c.fresh()
	if err != nil {
		return err
	}
	defer done()
	w, err := set.CoreV1().ConfigMaps(c.namespace).Watch(ctx, metav1.ListOptions{AllowWatchBookmarks: true})
	if err != nil {
		return err
	}
	defer w.Stop()
	count.opened()
	for event := range w.ResultChan() {
		if event.Type == watch.Error {
			return fmt.Errorf("the server sent an error: %v", event.Object)
		}
		count.event()
	}
	return nil
}
