package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// apiLimit is how long one request to the API server may take.
const apiLimit = 10 * time.Second

// pod is one Pod from the moment we see it until nothing of it is left.
type pod struct {
	runner     *runner
	object     *corev1.Pod // as first seen: what we read of it does not change
	started    metav1.Time
	containers []*container
	number     int // names its namespace and its addresses; 0 before it has any
	conditions []corev1.PodCondition
	log        *slog.Logger

	changed chan struct{} // a container has a new status
	// Two ends: the first asks the containers to end, the second kills them.
	stopping, killed context.Context
	stop, kill       context.CancelFunc
	lifetime         context.Context
	once             sync.Once
}

func newPod(ctx context.Context, r *runner, object *corev1.Pod) *pod {
	p := &pod{
		runner: r, object: object, started: metav1.Now(), lifetime: ctx, changed: make(chan struct{}, 1),
		conditions: object.Status.Conditions, log: slog.With("pod", object.Namespace+"/"+object.Name),
	}
	p.stopping, p.stop = context.WithCancel(ctx)
	p.killed, p.kill = context.WithCancel(ctx)
	for i := range object.Spec.Containers {
		p.containers = append(p.containers, newContainer(p, &object.Spec.Containers[i]))
	}
	return p
}

// end asks the Pod to end within its grace period. Asked again, the shorter period counts.
func (p *pod) end(seconds *int64) {
	p.stop()
	grace := time.Duration(0)
	if seconds != nil {
		grace = time.Duration(*seconds) * time.Second
	}
	if grace == 0 {
		p.kill()
	} else {
		time.AfterFunc(grace, p.kill)
	}
}

func (p *pod) run() {
	defer p.kill()
	if p.prepare() {
		p.live()
	}
	p.remove()
}

// prepare gives the Pod a node, a network and a directory. False if it was ended before it had them.
func (p *pod) prepare() bool {
	return p.persist("binding", p.bind) &&
		p.persist("network", p.attach) &&
		p.persist("directory", func() error { return os.MkdirAll(p.directory(), 0o755) })
}

// live runs the containers, and tells the API server of each change, until all have ended.
func (p *pod) live() {
	var running sync.WaitGroup
	for _, c := range p.containers {
		running.Go(c.run)
	}
	ended := make(chan struct{})
	go func() {
		running.Wait()
		close(ended)
	}()
	for {
		select {
		case <-p.changed:
			p.publish()
		case <-ended:
			p.publish()
			<-p.stopping.Done() // one that has completed stays until it is deleted
			return
		}
	}
}

func (p *pod) bind() error {
	if p.object.Spec.NodeName != "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(p.stopping, apiLimit)
	defer cancel()
	binding := &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Name: p.object.Name, Namespace: p.object.Namespace, UID: p.object.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: p.runner.options.node},
	}
	err := p.runner.client.CoreV1().Pods(p.object.Namespace).Bind(ctx, binding, metav1.CreateOptions{})
	if apierrors.IsConflict(err) { // bound already: by us, before our object was read
		return nil
	}
	return err
}

func (p *pod) attach() error {
	if p.object.Spec.HostNetwork {
		return errors.New("hostNetwork is not for this node: its network is that of the control plane")
	}
	number, err := p.runner.numbers.take()
	if err != nil {
		return err
	}
	if err := attach(&p.runner.options, number); err != nil {
		p.runner.numbers.give(number)
		return err
	}
	p.number = number
	return nil
}

// changedNow says that there is something new to publish.
func (p *pod) changedNow() {
	select {
	case p.changed <- struct{}{}:
	default: // said already
	}
}

// publish writes the status; while the API server cannot be reached, it is asked each second.
func (p *pod) publish() {
	statuses := make([]corev1.ContainerStatus, len(p.containers))
	for i, c := range p.containers {
		statuses[i] = c.current()
	}
	status := podStatus(p.object, statuses, p.started, p.conditions, metav1.Now())
	status.PodIP, status.PodIPs = podIPs(p.addresses())
	status.HostIP, status.HostIPs = hostIPs(p.runner.options.hostIPs)
	p.conditions = status.Conditions
	ctx, cancel := context.WithTimeout(p.lifetime, apiLimit)
	defer cancel()
	err := writeStatus(ctx, p.runner.client, p.object, &status)
	if err != nil && !apierrors.IsNotFound(err) && ctx.Err() == nil {
		p.log.Warn("status not written", "error", err)
		time.AfterFunc(time.Second, p.changedNow)
	}
}

// addresses are IPv4 first, IPv6 second.
func (p *pod) addresses() []string {
	return addressesOf(&p.runner.options, p.number)
}

func (p *pod) directory() string {
	return p.runner.directory(p.object.UID)
}

// remove leaves nothing: network, files, and the object, which waits for us if it was deleted.
func (p *pod) remove() {
	if p.number != 0 {
		if err := detach(&p.runner.options, p.number); err != nil {
			p.log.Warn("network not removed", "error", err)
		}
		p.runner.numbers.give(p.number)
	}
	if err := os.RemoveAll(p.directory()); err != nil {
		p.log.Warn("files not removed", "error", err)
	}
	for p.lifetime.Err() == nil {
		err := p.deleteObject()
		if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return
		}
		p.log.Warn("object not deleted", "error", err)
		pause(p.lifetime, time.Second)
	}
}

func (p *pod) deleteObject() error {
	ctx, cancel := context.WithTimeout(p.lifetime, apiLimit)
	defer cancel()
	now := int64(0)
	return p.runner.client.CoreV1().Pods(p.object.Namespace).Delete(ctx, p.object.Name, metav1.DeleteOptions{
		GracePeriodSeconds: &now,
		Preconditions:      &metav1.Preconditions{UID: &p.object.UID},
	})
}

// persist tries each second until it works; false if the Pod is to end first.
func (p *pod) persist(what string, try func() error) bool {
	for p.stopping.Err() == nil {
		err := try()
		if err == nil {
			return true
		}
		p.log.Warn(what+" failed, trying again", "error", err)
		pause(p.stopping, time.Second)
	}
	return false
}

// pause sleeps, or less if the context ends.
func pause(ctx context.Context, length time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(length):
	}
}
