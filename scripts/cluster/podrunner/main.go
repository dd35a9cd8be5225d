// podrunner is node, scheduler and kubelet of the lab's cluster: real Pods without a container runtime.
//
// The journey of a Pod: the informer shows it (runner.go); it is bound to our node, gets a network
// namespace and addresses (pod.go, network.go, numbers.go); each of its containers becomes a process
// with a root, a PID namespace and an environment of its own (container.go, inside.go, image.go,
// env.go, volume.go), is probed (probe.go), restarted when it ends (backoff.go) and reported
// (status.go). What it says is kept with the time (logs.go) and served as a kubelet does (kubelet.go).
// A Pod that is deleted has its grace period, and then nothing of it is left.
//
// What a Pod may ask for and does not get is in limits.go; such a Pod waits and says why.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"syscall"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// options are where things are; scripts/lab.d/cluster.sh gives them all.
type options struct {
	kubeconfig string
	images     string
	state      string
	prefix     string
	bridge     string
	node       string
	hostIPs    []string
	pods4      netip.Prefix
	pods6      netip.Prefix
	listen     netip.AddrPort
	cert       string
	key        string
	clientCA   string
}

func parse(arguments []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("podrunner", flag.ContinueOnError)
	flags.StringVar(&o.kubeconfig, "kubeconfig", "", "how to reach the API server")
	flags.StringVar(&o.images, "images", "", "directory with a program for each image")
	flags.StringVar(&o.state, "state", "", "directory for logs and volumes")
	flags.StringVar(&o.prefix, "prefix", "lab-pod-", "how the pods' network namespaces are called, before a number")
	flags.StringVar(&o.bridge, "bridge", "pods", "bridge of this namespace that pods are wired to")
	flags.StringVar(&o.node, "node", "node", "name of our Node")
	flags.Func("host-ip", "an address of the Node; may be repeated", func(text string) error {
		_, err := netip.ParseAddr(text)
		o.hostIPs = append(o.hostIPs, text)
		return err
	})
	flags.Func("pods4", "addresses of the pods, a /24 whose .1 is the bridge", prefixOf(&o.pods4))
	flags.Func("pods6", "the same in IPv6, a /64", prefixOf(&o.pods6))
	flags.Func("listen", "address and port where the API server asks for logs", func(text string) (err error) {
		o.listen, err = netip.ParseAddrPort(text)
		return err
	})
	flags.StringVar(&o.cert, "certificate", "", "certificate of that server")
	flags.StringVar(&o.key, "key", "", "its key")
	flags.StringVar(&o.clientCA, "client-ca", "", "who signs those that may ask")
	if err := flags.Parse(arguments); err != nil {
		return o, err
	}
	if !o.pods4.IsValid() || !o.pods6.IsValid() || !o.listen.IsValid() || len(o.hostIPs) == 0 {
		return o, errors.New("--pods4, --pods6, --listen and --host-ip are wanted")
	}
	return o, nil
}

func prefixOf(to *netip.Prefix) func(string) error {
	return func(text string) (err error) {
		*to, err = netip.ParsePrefix(text)
		return err
	}
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == insideVerb {
		fmt.Fprintf(os.Stderr, "podrunner: %v\n", enter())
		os.Exit(cannotRun)
	}
	if err := run(os.Args[1:]); err != nil {
		slog.Error("podrunner ends", "error", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	o, err := parse(arguments)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	config, err := clientcmd.BuildConfigFromFlags("", o.kubeconfig)
	if err != nil {
		return fmt.Errorf("--kubeconfig %s: %w", o.kubeconfig, err)
	}
	config.QPS, config.Burst = 200, 400
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	if err := removeStale(&o); err != nil {
		return err
	}
	if err := os.RemoveAll(o.state); err != nil {
		return fmt.Errorf("--state %s: %w", o.state, err)
	}
	r := newRunner(o, client)
	go keepNode(ctx, o, client)
	if err := serveKubelet(ctx, o, r); err != nil {
		return err
	}
	r.watch(ctx)
	return nil
}
