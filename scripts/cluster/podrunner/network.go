package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// attach makes the network namespace of a pod and wires it to the bridge, offloads off: a frame is
// what a capture shows, as on the other wires of the lab.
func attach(o *options, number int) error {
	name, wire := namespaceName(o.prefix, number), wireName(number)
	if err := command("", "ip", "netns", "add", name); err != nil {
		return err
	}
	inPod := []string{"ip", "netns", "exec", name}
	steps := []struct {
		input string
		line  []string
	}{
		{"", append(slices.Clone(inPod), "sysctl", "-qw",
			"net.ipv6.conf.default.accept_ra=0", "net.ipv6.conf.default.accept_dad=0",
			"net.ipv6.conf.default.router_solicitations=0", "net.core.somaxconn=4096")},
		{hostSide(o, name, wire), []string{"ip", "-batch", "-"}},
		{podSide(o, number), []string{"ip", "-n", name, "-batch", "-"}},
		{"", append(slices.Clone(inPod), offloadsOff("eth0")...)},
		{"", offloadsOff(wire)},
	}
	for _, step := range steps {
		if err := command(step.input, step.line[0], step.line[1:]...); err != nil {
			_ = detach(o, number)
			return err
		}
	}
	return nil
}

func wireName(number int) string { return fmt.Sprintf("pod%d", number) }

func hostSide(o *options, name, wire string) string {
	return fmt.Sprintf("link add %s type veth peer name eth0 netns %s\nlink set %s master %s up\n", wire, name, wire, o.bridge)
}

func podSide(o *options, number int) string {
	var batch strings.Builder
	batch.WriteString("link set lo up\nlink set eth0 up\n")
	for _, prefix := range []netip.Prefix{o.pods4, o.pods6} {
		fmt.Fprintf(&batch, "address add %v/%d dev eth0 nodad\nroute add default via %v\n",
			numbered(prefix, number), prefix.Bits(), numbered(prefix, 1))
	}
	return batch.String()
}

func offloadsOff(link string) []string {
	return []string{"ethtool", "-K", link, "tx", "off", "rx", "off", "tso", "off", "gso", "off", "gro", "off"}
}

// detach removes the namespace, and with it the wire.
func detach(o *options, number int) error {
	// The wire goes with the namespace, but some time later; by name it goes now.
	_ = command("", "ip", "link", "delete", wireName(number))
	return command("", "ip", "netns", "delete", namespaceName(o.prefix, number))
}

// removeStale removes the namespaces and wires that an earlier run of ours left when it was killed, and
// kills what still runs in them: a container that had just begun may not yet be bound to die with us.
func removeStale(o *options) error {
	for number := numberFirst; number <= numberLast; number++ {
		if _, err := os.Stat(namespacePath(o.prefix, number)); err != nil {
			continue
		}
		if err := killAll(namespaceName(o.prefix, number)); err != nil {
			return err
		}
		if err := detach(o, number); err != nil {
			return err
		}
	}
	return nil
}

// killAll kills the processes of a namespace; without its name nobody would find them any more.
func killAll(namespace string) error {
	said, err := exec.Command("ip", "netns", "pids", namespace).Output()
	if err != nil {
		return fmt.Errorf("ip netns pids %s: %w", namespace, err)
	}
	for _, text := range strings.Fields(string(said)) {
		pid, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("ip netns pids %s says %q: %w", namespace, text, err)
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("kill %d of %s: %w", pid, namespace, err)
		}
	}
	return nil
}

// command runs a program to its end with that input.
func command(input, name string, arguments ...string) error {
	run := exec.Command(name, arguments...)
	run.Stdin = strings.NewReader(input)
	if said, err := run.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(arguments, " "), err, strings.TrimSpace(string(said)))
	}
	return nil
}
