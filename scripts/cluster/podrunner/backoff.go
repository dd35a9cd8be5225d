package main

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

const (
	backoffFirst = time.Second
	backoffMost  = time.Minute
)

// backoff is how long a container that ends must wait: not at all the first time, then a second,
// doubled each time up to a minute. Who ran for a minute begins anew. A kubelet does the same with
// ten times these times; a lab has less patience.
type backoff struct {
	next time.Duration
}

// after is the wait of a container that has ended after it ran for so long.
func (b *backoff) after(ran time.Duration) time.Duration {
	if ran >= backoffMost {
		b.next = 0
	}
	wait := b.next
	b.next = min(max(2*b.next, backoffFirst), backoffMost)
	return wait
}

// restarts says whether a container that ended so is started again.
func restarts(policy corev1.RestartPolicy, code int32) bool {
	switch policy {
	case corev1.RestartPolicyNever:
		return false
	case corev1.RestartPolicyOnFailure:
		return code != 0
	default:
		return true
	}
}
