package main

import (
	"context"
	"log/slog"
	"runtime"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// heartbeat is how often the Node is told to be there, also to an API server that has lost it.
const heartbeat = 30 * time.Second

func keepNode(ctx context.Context, o options, client kubernetes.Interface) {
	since := metav1.Now()
	for ctx.Err() == nil {
		wait := heartbeat
		if err := writeNode(ctx, o, client, since); err != nil && ctx.Err() == nil {
			slog.Warn("node not written", "error", err)
			wait = time.Second
		}
		pause(ctx, wait)
	}
}

func writeNode(ctx context.Context, o options, client kubernetes.Interface, since metav1.Time) error {
	ctx, cancel := context.WithTimeout(ctx, apiLimit)
	defer cancel()
	nodes := client.CoreV1().Nodes()
	node, err := nodes.Get(ctx, o.node, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		node, err = nodes.Create(ctx, newNode(o), metav1.CreateOptions{})
	}
	if err != nil {
		return err
	}
	node.Status = nodeStatus(o, since, metav1.Now())
	_, err = nodes.UpdateStatus(ctx, node, metav1.UpdateOptions{})
	return err
}

func newNode(o options) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: o.node, Labels: map[string]string{
			corev1.LabelHostname: o.node, corev1.LabelOSStable: runtime.GOOS, corev1.LabelArchStable: runtime.GOARCH,
		}},
		Spec: corev1.NodeSpec{PodCIDR: o.pods4.String(), PodCIDRs: []string{o.pods4.String(), o.pods6.String()}},
	}
}

func nodeStatus(o options, since, now metav1.Time) corev1.NodeStatus {
	status := corev1.NodeStatus{
		Capacity: corev1.ResourceList{corev1.ResourcePods: *resource.NewQuantity(numberLast-numberFirst+1, resource.DecimalSI)},
		Conditions: []corev1.NodeCondition{{
			Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "PodRunnerRuns",
			LastHeartbeatTime: now, LastTransitionTime: since,
		}},
		NodeInfo: corev1.NodeSystemInfo{
			OperatingSystem: runtime.GOOS, Architecture: runtime.GOARCH, ContainerRuntimeVersion: "process://podrunner",
		},
	}
	status.Allocatable = status.Capacity
	for _, address := range o.hostIPs {
		status.Addresses = append(status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: address})
	}
	status.Addresses = append(status.Addresses, corev1.NodeAddress{Type: corev1.NodeHostName, Address: o.node})
	status.DaemonEndpoints.KubeletEndpoint.Port = int32(o.listen.Port())
	return status
}
