package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// objects are the Secrets and ConfigMaps of a Pod's namespace. What is not there is (nil, nil).
type objects interface {
	secret(name string) (map[string][]byte, error)
	configMap(name string) (map[string][]byte, error)
}

// clusterObjects asks the API server.
type clusterObjects struct {
	ctx       context.Context
	client    kubernetes.Interface
	namespace string
}

func (o clusterObjects) secret(name string) (map[string][]byte, error) {
	secret, err := o.client.CoreV1().Secrets(o.namespace).Get(o.ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	data := map[string][]byte{} // there, even if empty
	maps.Copy(data, secret.Data)
	return data, nil
}

func (o clusterObjects) configMap(name string) (map[string][]byte, error) {
	config, err := o.client.CoreV1().ConfigMaps(o.namespace).Get(o.ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	data := map[string][]byte{}
	maps.Copy(data, config.BinaryData)
	for key, text := range config.Data {
		data[key] = []byte(text)
	}
	return data, nil
}

// environment is what a container finds in its environment, by name. Later entries see the earlier
// ones as $(NAME).
func environment(c *corev1.Container, pod *corev1.Pod, podIPs, hostIPs []string, from objects) (map[string]string, error) {
	known := map[string]string{
		"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/", "HOSTNAME": pod.Name,
	}
	for _, source := range c.EnvFrom {
		if err := addAll(known, source, from); err != nil {
			return nil, err
		}
	}
	for _, variable := range c.Env {
		if variable.ValueFrom == nil {
			known[variable.Name] = expand(variable.Value, known)
			continue
		}
		value, there, err := valueFrom(variable.ValueFrom, pod, podIPs, hostIPs, from)
		if err != nil {
			return nil, fmt.Errorf("variable %s: %w", variable.Name, err)
		}
		if there {
			known[variable.Name] = value
		}
	}
	return known, nil
}

func addAll(known map[string]string, source corev1.EnvFromSource, from objects) error {
	var data map[string][]byte
	var err error
	var what string
	var optional *bool
	switch {
	case source.ConfigMapRef != nil:
		what, optional = "ConfigMap "+source.ConfigMapRef.Name, source.ConfigMapRef.Optional
		data, err = from.configMap(source.ConfigMapRef.Name)
	case source.SecretRef != nil:
		what, optional = "Secret "+source.SecretRef.Name, source.SecretRef.Optional
		data, err = from.secret(source.SecretRef.Name)
	}
	if err != nil {
		return err
	}
	if data == nil && !isTrue(optional) {
		return fmt.Errorf("%s is not there", what)
	}
	for key, value := range data {
		known[source.Prefix+key] = string(value)
	}
	return nil
}

// valueFrom is the value that a source gives; not there if the source is optional and missing.
func valueFrom(source *corev1.EnvVarSource, pod *corev1.Pod, podIPs, hostIPs []string, from objects) (string, bool, error) {
	switch {
	case source.FieldRef != nil:
		value, err := field(source.FieldRef.FieldPath, pod, podIPs, hostIPs)
		return value, true, err
	case source.ConfigMapKeyRef != nil:
		ref := source.ConfigMapKeyRef
		data, err := from.configMap(ref.Name)
		return keyOf(data, err, "ConfigMap "+ref.Name, ref.Key, ref.Optional)
	case source.SecretKeyRef != nil:
		ref := source.SecretKeyRef
		data, err := from.secret(ref.Name)
		return keyOf(data, err, "Secret "+ref.Name, ref.Key, ref.Optional)
	}
	return "", false, notHere("variables from resources or files")
}

func keyOf(data map[string][]byte, err error, what, key string, optional *bool) (string, bool, error) {
	value, there := data[key]
	if err != nil || there {
		return string(value), there, err
	}
	if isTrue(optional) {
		return "", false, nil
	}
	return "", false, fmt.Errorf("%s has no key %s, or is not there", what, key)
}

func field(path string, pod *corev1.Pod, podIPs, hostIPs []string) (string, error) {
	if kind, key, ok := strings.Cut(strings.TrimSuffix(path, "']"), "['"); ok {
		switch kind {
		case "metadata.labels":
			return pod.Labels[key], nil
		case "metadata.annotations":
			return pod.Annotations[key], nil
		}
	}
	switch path {
	case "metadata.name":
		return pod.Name, nil
	case "metadata.namespace":
		return pod.Namespace, nil
	case "metadata.uid":
		return string(pod.UID), nil
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.podIP":
		return podIPs[0], nil
	case "status.podIPs":
		return strings.Join(podIPs, ","), nil
	case "status.hostIP":
		return hostIPs[0], nil
	case "status.hostIPs":
		return strings.Join(hostIPs, ","), nil
	}
	return "", fmt.Errorf("there is no field %s to refer to", path)
}

// expand replaces $(NAME) by what is known; what is not stays as it is, and $$ is a dollar.
func expand(text string, known map[string]string) string {
	var out strings.Builder
	for {
		before, after, found := strings.Cut(text, "$")
		out.WriteString(before)
		if !found {
			return out.String()
		}
		text = after
		name, rest, closed := strings.Cut(strings.TrimPrefix(text, "("), ")")
		value, is := known[name]
		switch {
		case strings.HasPrefix(text, "$"):
			out.WriteString("$")
			text = text[1:]
		case strings.HasPrefix(text, "(") && closed && is:
			out.WriteString(value)
			text = rest
		default:
			out.WriteString("$")
		}
	}
}

// argv is the command line: the container's command, or its image's program; then its arguments.
func argv(c *corev1.Container, image string, known map[string]string) []string {
	line := c.Command
	if len(line) == 0 {
		line = []string{"/" + image}
	}
	line = slices.Concat(line, c.Args)
	for i := range line {
		line[i] = expand(line[i], known)
	}
	return line
}

func listed(known map[string]string) []string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(known)) {
		list = append(list, name+"="+known[name])
	}
	return list
}

func isTrue(flag *bool) bool { return flag != nil && *flag }
