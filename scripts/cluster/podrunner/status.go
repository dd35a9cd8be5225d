package main

import (
	"context"
	"encoding/json"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// podStatus concludes the Pod from its containers. A condition that stays keeps its time.
func podStatus(pod *corev1.Pod, containers []corev1.ContainerStatus, started metav1.Time,
	before []corev1.PodCondition, now metav1.Time,
) corev1.PodStatus {
	status := corev1.PodStatus{
		ObservedGeneration: pod.Generation,
		Phase:              phase(pod.Spec.RestartPolicy, containers),
		StartTime:          &started,
		ContainerStatuses:  containers,
	}
	ready, reason := corev1.ConditionTrue, ""
	for _, c := range containers {
		if !c.Ready {
			ready, reason = corev1.ConditionFalse, "ContainersNotReady"
		}
	}
	if ready == corev1.ConditionFalse && status.Phase == corev1.PodSucceeded {
		reason = "PodCompleted"
	}
	always := corev1.ConditionTrue
	status.Conditions = []corev1.PodCondition{
		condition(corev1.PodScheduled, always, "", pod.Generation, before, now),
		condition(corev1.PodReadyToStartContainers, always, "", pod.Generation, before, now),
		condition(corev1.PodInitialized, always, "", pod.Generation, before, now),
		condition(corev1.ContainersReady, ready, reason, pod.Generation, before, now),
		condition(corev1.PodReady, ready, reason, pod.Generation, before, now),
	}
	return status
}

func condition(kind corev1.PodConditionType, is corev1.ConditionStatus, reason string, generation int64,
	before []corev1.PodCondition, now metav1.Time,
) corev1.PodCondition {
	c := corev1.PodCondition{Type: kind, Status: is, Reason: reason, ObservedGeneration: generation, LastTransitionTime: now}
	for _, old := range before {
		if old.Type == kind && old.Status == is {
			c.LastTransitionTime = old.LastTransitionTime
		}
	}
	return c
}

// phase is what the containers' states come to. One that is to be started again has not ended.
func phase(policy corev1.RestartPolicy, containers []corev1.ContainerStatus) corev1.PodPhase {
	begun, ended, failed := 0, 0, 0
	for _, c := range containers {
		if c.State.Running != nil || c.State.Terminated != nil || c.LastTerminationState.Terminated != nil {
			begun++
		}
		if end := c.State.Terminated; end != nil && !restarts(policy, end.ExitCode) {
			ended++
			if end.ExitCode != 0 {
				failed++
			}
		}
	}
	switch {
	case ended == len(containers) && failed > 0:
		return corev1.PodFailed
	case ended == len(containers):
		return corev1.PodSucceeded
	case begun > 0:
		return corev1.PodRunning
	default:
		return corev1.PodPending
	}
}

func podIPs(addresses []string) (string, []corev1.PodIP) {
	var list []corev1.PodIP
	for _, address := range addresses {
		list = append(list, corev1.PodIP{IP: address})
	}
	return addresses[0], list
}

func hostIPs(addresses []string) (string, []corev1.HostIP) {
	var list []corev1.HostIP
	for _, address := range addresses {
		list = append(list, corev1.HostIP{IP: address})
	}
	return addresses[0], list
}

// writeStatus replaces the status, of this very Pod: one of the same name is another.
func writeStatus(ctx context.Context, client kubernetes.Interface, pod *corev1.Pod, status *corev1.PodStatus) error {
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": pod.UID}, "status": status})
	if err != nil {
		return err
	}
	_, err = client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.MergePatchType, body, metav1.PatchOptions{}, "status")
	return err
}
