package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"
)

// serveKubelet answers what the API server asks a kubelet, for those whom the cluster's CA has
// signed: the containers' logs.
func serveKubelet(ctx context.Context, o options, r *runner) error {
	certificate, err := tls.LoadX509KeyPair(o.cert, o.key)
	if err != nil {
		return fmt.Errorf("--certificate and --key: %w", err)
	}
	authority, err := os.ReadFile(o.clientCA)
	if err != nil {
		return fmt.Errorf("--client-ca: %w", err)
	}
	clients := x509.NewCertPool()
	if !clients.AppendCertsFromPEM(authority) {
		return fmt.Errorf("--client-ca %s: no certificate in it", o.clientCA)
	}
	listener, err := tls.Listen("tcp", o.listen.String(), &tls.Config{
		Certificates: []tls.Certificate{certificate}, ClientCAs: clients,
		ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12,
	})
	if err != nil {
		return fmt.Errorf("--listen %s: %w", o.listen, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", r.serveLogs)
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: 10 * time.Second,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			slog.Error("the kubelet's server ended", "error", err)
		}
	}()
	return nil
}

func (r *runner) serveLogs(w http.ResponseWriter, request *http.Request) {
	query, err := parseLogQuery(request.URL.Query(), time.Now())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	p := r.find(request.PathValue("namespace"), request.PathValue("pod"))
	if p == nil {
		http.Error(w, "no such pod", http.StatusNotFound)
		return
	}
	for _, c := range p.containers {
		if c.spec.Name == request.PathValue("container") {
			c.serveLog(w, request, query)
			return
		}
	}
	http.Error(w, "no such container", http.StatusNotFound)
}

func (c *container) serveLog(w http.ResponseWriter, request *http.Request, query logQuery) {
	file, err := os.Open(c.logPath(query.previous))
	if err != nil {
		http.Error(w, "it has said nothing yet", http.StatusNotFound)
		return
	}
	defer file.Close()
	// Followers are let go when the Pod ends.
	ctx, cancel := context.WithCancel(request.Context())
	defer cancel()
	defer context.AfterFunc(c.pod.killed, cancel)()
	w.Header().Set("Content-Type", "text/plain")
	if err := copyLog(ctx, flushing{w, http.NewResponseController(w)}, file, query); err != nil {
		c.pod.log.Warn("log not served", "error", err)
	}
}

// flushing lets a follower see each line when it comes.
type flushing struct {
	http.ResponseWriter
	controller *http.ResponseController
}

func (f flushing) Write(text []byte) (int, error) {
	n, err := f.ResponseWriter.Write(text)
	if err == nil {
		err = f.controller.Flush()
	}
	return n, err
}
