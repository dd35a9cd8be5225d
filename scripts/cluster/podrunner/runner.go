package main

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// runner has all Pods of the cluster, for there is one node.
type runner struct {
	options options
	client  kubernetes.Interface
	numbers *numbers

	mu   sync.Mutex
	pods map[types.UID]*pod
	all  sync.WaitGroup
}

func newRunner(o options, client kubernetes.Interface) *runner {
	return &runner{options: o, client: client, numbers: newNumbers(), pods: map[types.UID]*pod{}}
}

// watch runs Pods until the context ends, then ends them all at once.
func (r *runner) watch(ctx context.Context) {
	factory := informers.NewSharedInformerFactory(r.client, 0)
	_, err := factory.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { r.observe(ctx, o.(*corev1.Pod)) },
		UpdateFunc: func(_, o any) { r.observe(ctx, o.(*corev1.Pod)) },
		DeleteFunc: func(o any) {
			if unknown, missed := o.(cache.DeletedFinalStateUnknown); missed {
				o = unknown.Obj
			}
			if gone, ok := o.(*corev1.Pod); ok {
				r.forget(gone.UID)
			}
		},
	})
	if err != nil {
		slog.Error("pods cannot be watched", "error", err)
		return
	}
	factory.Start(ctx.Done())
	<-ctx.Done()
	r.all.Wait()
}

// observe starts a Pod that is new, and ends one that is being deleted.
func (r *runner) observe(ctx context.Context, object *corev1.Pod) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, known := r.pods[object.UID]
	if !known {
		ended := object.Status.Phase == corev1.PodSucceeded || object.Status.Phase == corev1.PodFailed
		if ctx.Err() != nil || (ended && object.DeletionTimestamp == nil) {
			return
		}
		p = newPod(ctx, r, object)
		r.pods[object.UID] = p
		r.all.Go(p.run)
	}
	if object.DeletionTimestamp != nil {
		p.end(object.DeletionGracePeriodSeconds)
	}
}

// forget ends a Pod whose object is gone: there is no grace to ask for any more.
func (r *runner) forget(uid types.UID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p, known := r.pods[uid]; known {
		delete(r.pods, uid)
		p.end(new(int64))
	}
}

// find is for the kubelet's server.
func (r *runner) find(namespace, name string) *pod {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.pods {
		if p.object.Namespace == namespace && p.object.Name == name {
			return p
		}
	}
	return nil
}

// directory is where a Pod keeps logs and volumes.
func (r *runner) directory(uid types.UID) string {
	return filepath.Join(r.options.state, string(uid))
}
