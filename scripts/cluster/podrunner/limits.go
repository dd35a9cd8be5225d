package main

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// refusal is an error that has a word of its own as the reason why a container waits.
type refusal struct {
	reason string
	text   string
}

func (r refusal) Error() string { return r.text }

// unsupported says what a container asks for that this node cannot give, so that it is told and not
// passed over. What isolates or limits a container (resources, securityContext) is passed over.
func unsupported(pod *corev1.PodSpec, c *corev1.Container) error {
	switch {
	case len(pod.InitContainers) > 0:
		return notHere("init containers")
	case c.LivenessProbe != nil:
		return notHere("a liveness probe")
	case c.StartupProbe != nil:
		return notHere("a startup probe")
	case c.Lifecycle != nil:
		return notHere("lifecycle hooks")
	case c.ReadinessProbe != nil && c.ReadinessProbe.HTTPGet == nil && c.ReadinessProbe.TCPSocket == nil:
		return notHere("a readiness probe other than httpGet and tcpSocket")
	}
	return nil
}

func notHere(what string) error {
	return refusal{"CreateContainerConfigError", fmt.Sprintf("the lab's pod runner does not do %s", what)}
}
