package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// settled is how long a container without a readiness probe must have run to be ready.
const settled = 300 * time.Millisecond

// container is one container of a Pod, through all its restarts.
type container struct {
	pod  *pod
	spec *corev1.Container

	mu     sync.Mutex
	status corev1.ContainerStatus
}

func newContainer(p *pod, spec *corev1.Container) *container {
	status := corev1.ContainerStatus{
		Name: spec.Name, Image: spec.Image, Started: new(bool),
		State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}},
	}
	// After a restart of ours the processes are new: that is a restart of theirs.
	for _, before := range p.object.Status.ContainerStatuses {
		if before.Name == spec.Name {
			status.RestartCount = before.RestartCount
			if before.State.Running != nil {
				status.RestartCount++
			}
		}
	}
	return &container{pod: p, spec: spec, status: status}
}

func (c *container) current() corev1.ContainerStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	return *c.status.DeepCopy()
}

func (c *container) set(change func(*corev1.ContainerStatus)) {
	c.mu.Lock()
	change(&c.status)
	c.mu.Unlock()
	c.pod.changedNow()
}

func (c *container) waits(reason, message string) {
	c.set(func(s *corev1.ContainerStatus) {
		s.Ready, s.Started = false, new(bool)
		s.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
	})
}

// run starts the container again and again, as the Pod's restartPolicy says, until the Pod ends.
func (c *container) run() {
	var backoff backoff
	for {
		command, ok := c.prepared()
		if !ok {
			return
		}
		begun := time.Now()
		ended := c.runOnce(command)
		if c.pod.stopping.Err() != nil || !restarts(c.pod.object.Spec.RestartPolicy, ended.ExitCode) {
			return
		}
		if wait := backoff.after(time.Since(begun)); wait > 0 {
			c.waits("CrashLoopBackOff", fmt.Sprintf("starts again in %v", wait))
			pause(c.pod.stopping, wait)
		}
		if c.pod.stopping.Err() != nil {
			return
		}
		c.set(func(s *corev1.ContainerStatus) { s.RestartCount++ })
	}
}

// prepared waits until all that the container needs is there: its image, Secrets, ConfigMaps.
func (c *container) prepared() (*exec.Cmd, bool) {
	for c.pod.stopping.Err() == nil {
		command, err := c.command()
		if err == nil {
			return command, true
		}
		var refusal refusal
		if !errors.As(err, &refusal) {
			refusal.reason = "CreateContainerConfigError"
		}
		c.waits(refusal.reason, err.Error())
		pause(c.pod.stopping, time.Second)
	}
	return nil, false
}

// command is everything up to the start.
func (c *container) command() (*exec.Cmd, error) {
	if err := unsupported(&c.pod.object.Spec, c.spec); err != nil {
		return nil, err
	}
	program, err := programOf(c.pod.runner.options.images, c.spec.Image)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(c.pod.stopping, apiLimit)
	defer cancel()
	objects := clusterObjects{ctx: ctx, client: c.pod.runner.client, namespace: c.pod.object.Namespace}
	mounts, err := c.mounts(objects)
	if err != nil {
		return nil, err
	}
	known, err := environment(c.spec, c.pod.object, c.pod.addresses(), c.pod.runner.options.hostIPs, objects)
	if err != nil {
		return nil, err
	}
	return insideCommand(inside{
		Namespace: namespacePath(c.pod.runner.options.prefix, c.pod.number),
		Root:      filepath.Join(c.pod.directory(), "root", c.spec.Name),
		Hostname:  c.pod.object.Name,
		Program:   program,
		Mounts:    mounts,
		Argv:      argv(c.spec, filepath.Base(program), known),
		Env:       listed(known),
		Dir:       c.spec.WorkingDir,
	})
}

// mounts writes the volumes that the container mounts, anew each time, as they now are.
func (c *container) mounts(objects objects) ([]mount, error) {
	var mounts []mount
	for _, m := range c.spec.VolumeMounts {
		volume := volumeNamed(c.pod.object.Spec.Volumes, m.Name)
		if volume == nil {
			return nil, fmt.Errorf("volume %s is mounted and is not there", m.Name)
		}
		directory := filepath.Join(c.pod.directory(), "volumes", m.Name)
		if err := writeVolume(volume, directory, objects); err != nil {
			return nil, err
		}
		mounts = append(mounts, mount{
			Source: filepath.Join(directory, m.SubPath), Target: m.MountPath,
			ReadOnly: m.ReadOnly || volume.EmptyDir == nil,
		})
	}
	return mounts, nil
}

// runOnce runs the program from start to end.
func (c *container) runOnce(command *exec.Cmd) corev1.ContainerStateTerminated {
	log, err := newLog(c.logPath(false), c.logPath(true))
	if err != nil {
		return c.ended(metav1.Now(), cannotRun, err.Error())
	}
	defer log.Close()
	command.Stdout, command.Stderr = log, log
	begun := metav1.Now()
	err = command.Start()
	for _, file := range command.ExtraFiles {
		_ = file.Close() // the container has its own by now
	}
	if err != nil {
		return c.ended(begun, cannotRun, err.Error())
	}
	yes := true
	c.set(func(s *corev1.ContainerStatus) {
		s.Started = &yes
		s.ContainerID = fmt.Sprintf("process://%d", command.Process.Pid)
		s.State = corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: begun}}
	})
	running, over := context.WithCancel(c.pod.stopping)
	var probing sync.WaitGroup
	probing.Go(func() { c.probe(running) })
	code := c.waitFor(command)
	over()
	probing.Wait()
	return c.ended(begun, code, "")
}

// waitFor waits for the end, and brings it about when the Pod is to end.
func (c *container) waitFor(command *exec.Cmd) int32 {
	exited := make(chan struct{})
	go func() {
		_ = command.Wait() // its state says more than the error
		close(exited)
	}()
	select {
	case <-exited:
	case <-c.pod.stopping.Done():
		_ = command.Process.Signal(syscall.SIGTERM)
		select {
		case <-exited:
		case <-c.pod.killed.Done():
			_ = command.Process.Kill()
			<-exited
		}
	}
	return exitCode(command.ProcessState)
}

func (c *container) ended(begun metav1.Time, code int32, message string) corev1.ContainerStateTerminated {
	reason := "Completed"
	if code != 0 {
		reason = "Error"
	}
	end := corev1.ContainerStateTerminated{
		ExitCode: code, Reason: reason, Message: message, StartedAt: begun, FinishedAt: metav1.Now(),
	}
	c.set(func(s *corev1.ContainerStatus) {
		s.Ready, s.Started = false, new(bool)
		s.State = corev1.ContainerState{Terminated: &end}
		s.LastTerminationState = corev1.ContainerState{Terminated: &end}
	})
	return end
}

// probe keeps Ready true to the readiness probe, or to whether it runs if there is none.
func (c *container) probe(running context.Context) {
	ready := func(is bool) {
		if running.Err() == nil && c.current().Ready != is {
			c.set(func(s *corev1.ContainerStatus) { s.Ready = is })
		}
	}
	probe := c.spec.ReadinessProbe
	if probe == nil {
		pause(running, settled)
		ready(true)
		return
	}
	pause(running, time.Duration(probe.InitialDelaySeconds)*time.Second)
	var seen readiness
	for running.Err() == nil {
		err := check(running, probe, c.spec, c.pod.addresses()[0])
		ready(seen.note(err == nil, probe))
		pause(running, time.Duration(max(probe.PeriodSeconds, 1))*time.Second)
	}
}

func (c *container) logPath(previous bool) string {
	name := c.spec.Name + ".log"
	if previous {
		name = c.spec.Name + ".previous.log"
	}
	return filepath.Join(c.pod.directory(), name)
}

// exitCode counts a signal as shells do: 128 and its number.
func exitCode(state *os.ProcessState) int32 {
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int32(status.Signal())
	}
	return int32(state.ExitCode())
}
