package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// readiness is what a row of probes has shown so far.
type readiness struct {
	ready  bool
	streak int32 // how many in a row differ from it
}

// note takes the outcome of one more probe and says whether the container is ready.
func (r *readiness) note(ok bool, probe *corev1.Probe) bool {
	if ok == r.ready {
		r.streak = 0
		return r.ready
	}
	r.streak++
	enough := probe.SuccessThreshold
	if r.ready {
		enough = probe.FailureThreshold
	}
	if r.streak >= enough {
		r.ready, r.streak = ok, 0
	}
	return r.ready
}

// check probes once.
func check(ctx context.Context, probe *corev1.Probe, c *corev1.Container, podIP string) error {
	limit := time.Duration(max(probe.TimeoutSeconds, 1)) * time.Second
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if get := probe.HTTPGet; get != nil {
		port, err := portNumber(get.Port, c)
		if err != nil {
			return err
		}
		return checkHTTP(ctx, get, hostPort(get.Host, podIP, port))
	}
	port, err := portNumber(probe.TCPSocket.Port, c)
	if err != nil {
		return err
	}
	var dialer net.Dialer
	connection, err := dialer.DialContext(ctx, "tcp", hostPort(probe.TCPSocket.Host, podIP, port))
	if err != nil {
		return err
	}
	return connection.Close()
}

// checkHTTP counts every answer from 200 to 399 as good. A redirect is not followed, and nobody asks who signed the
// certificate, as with a kubelet.
func checkHTTP(ctx context.Context, get *corev1.HTTPGetAction, to string) error {
	scheme := strings.ToLower(string(get.Scheme))
	if scheme == "" {
		scheme = "http"
	}
	url := scheme + "://" + to + "/" + strings.TrimPrefix(get.Path, "/")
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	request.Header.Set("User-Agent", "kube-probe/penstock-lab")
	for _, header := range get.HTTPHeaders {
		if strings.EqualFold(header.Name, "Host") {
			request.Host = header.Value
		}
		request.Header.Add(header.Name, header.Value)
	}
	client := http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode < 200 || answer.StatusCode > 399 {
		return fmt.Errorf("%s answers %s", url, answer.Status)
	}
	return nil
}

func hostPort(host, podIP string, port int) string {
	if host == "" {
		host = podIP
	}
	return net.JoinHostPort(host, strconv.Itoa(port))
}

// portNumber is the number of a port that may be given by its name in the container.
func portNumber(port intstr.IntOrString, c *corev1.Container) (int, error) {
	if port.Type == intstr.Int {
		return port.IntValue(), nil
	}
	for _, named := range c.Ports {
		if named.Name == port.StrVal {
			return int(named.ContainerPort), nil
		}
	}
	return 0, fmt.Errorf("container %s has no port named %s", c.Name, port.StrVal)
}
