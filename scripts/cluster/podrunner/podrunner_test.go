package main

import (
	"bytes"
	"context"
	"io"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// An image is a program of that name, and what is no name is told apart from what is not there.
func TestImages(t *testing.T) {
	images := t.TempDir()
	if err := os.WriteFile(filepath.Join(images, "echo"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ promise, image, want string }{
		{"a name is a program", "echo", "echo"},
		{"registry and tag are left out", "registry.example/a/echo:v1", "echo"},
		{"the port of a registry is no tag", "localhost:5000/echo", "echo"},
		{"a digest is left out", "registry.example/echo:v1@sha256:12ab", "echo"},
		{"an unknown image cannot be pulled", "registry.example/other:v1", "ErrImagePull"},
		{"no name", "", "InvalidImageName"},
		{"a folder is no name", "registry.example/echo/", "InvalidImageName"},
		{"nothing leads out of the folder", "registry.example/..", "InvalidImageName"},
	} {
		got, err := programOf(images, row.image)
		if refused, is := err.(refusal); is {
			got = refused.reason
		}
		if filepath.Base(got) != row.want {
			t.Errorf("%s: %q gives %q, want %q", row.promise, row.image, got, row.want)
		}
	}
}

func TestBackoff(t *testing.T) {
	const briefly = 10 * time.Millisecond
	for _, row := range []struct {
		promise string
		ran     []time.Duration
		want    time.Duration
	}{
		{"the first restart is at once", []time.Duration{briefly}, 0},
		{"the second waits a second", []time.Duration{briefly, briefly}, time.Second},
		{"then it doubles", slices.Repeat([]time.Duration{briefly}, 4), 4 * time.Second},
		{"up to a minute", slices.Repeat([]time.Duration{briefly}, 40), time.Minute},
		{"who ran for a minute begins anew", []time.Duration{briefly, briefly, briefly, time.Minute}, 0},
	} {
		var b backoff
		var got time.Duration
		for _, ran := range row.ran {
			got = b.after(ran)
		}
		if got != row.want {
			t.Errorf("%s: %v, want %v", row.promise, got, row.want)
		}
	}
}

func TestReadiness(t *testing.T) {
	probe := &corev1.Probe{SuccessThreshold: 2, FailureThreshold: 3}
	for _, row := range []struct{ promise, probes, want string }{ // + good, - bad; R ready, n not
		{"not ready before it was good", "---", "nnn"},
		{"as many good ones as asked for", "++", "nR"},
		{"in a row", "+-++", "nnnR"},
		{"a few bad ones change nothing", "++--+--", "nRRRRRR"},
		{"as many bad ones as asked for do", "++---", "nRRRn"},
	} {
		var r readiness
		got := ""
		for _, outcome := range row.probes {
			if r.note(outcome == '+', probe) {
				got += "R"
			} else {
				got += "n"
			}
		}
		if got != row.want {
			t.Errorf("%s: %s gives %s, want %s", row.promise, row.probes, got, row.want)
		}
	}
}

func running() corev1.ContainerStatus {
	return corev1.ContainerStatus{Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}
}

func waiting() corev1.ContainerStatus {
	return corev1.ContainerStatus{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{}}}
}

func ended(code int32) corev1.ContainerStatus {
	return corev1.ContainerStatus{State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code}}}
}

func TestPhase(t *testing.T) {
	crashed := waiting()
	crashed.LastTerminationState = ended(1).State
	all := func(list ...corev1.ContainerStatus) []corev1.ContainerStatus { return list }
	for _, row := range []struct {
		promise    string
		policy     corev1.RestartPolicy
		containers []corev1.ContainerStatus
		want       corev1.PodPhase
	}{
		{"nothing has begun", corev1.RestartPolicyAlways, all(waiting(), waiting()), corev1.PodPending},
		{"one has begun", corev1.RestartPolicyAlways, all(running(), waiting()), corev1.PodRunning},
		{"one waits to be started again", corev1.RestartPolicyAlways, all(crashed), corev1.PodRunning},
		{"one that is to be started again has not ended", corev1.RestartPolicyAlways, all(ended(0)), corev1.PodRunning},
		{"all ended well", corev1.RestartPolicyNever, all(ended(0), ended(0)), corev1.PodSucceeded},
		{"one ended badly", corev1.RestartPolicyNever, all(ended(0), ended(1)), corev1.PodFailed},
		{"one runs on", corev1.RestartPolicyNever, all(ended(1), running()), corev1.PodRunning},
		{"a failure is tried again", corev1.RestartPolicyOnFailure, all(ended(1)), corev1.PodRunning},
	} {
		if got := phase(row.policy, row.containers); got != row.want {
			t.Errorf("%s: %s, want %s", row.promise, got, row.want)
		}
	}
}

// A Pod is ready when all its containers are, and a condition keeps its time while it stays.
func TestConditions(t *testing.T) {
	early, late := metav1.Unix(1, 0), metav1.Unix(2, 0)
	pod := &corev1.Pod{}
	before := podStatus(pod, []corev1.ContainerStatus{running(), waiting()}, early, nil, early).Conditions
	after := podStatus(pod, []corev1.ContainerStatus{running(), running()}, early, before, late).Conditions
	for _, row := range []struct {
		promise    string
		conditions []corev1.PodCondition
		kind       corev1.PodConditionType
		status     corev1.ConditionStatus
		since      metav1.Time
	}{
		{"one container that is not ready", before, corev1.PodReady, corev1.ConditionFalse, early},
		{"all are ready", after, corev1.PodReady, corev1.ConditionTrue, late},
		{"what stays keeps its time", after, corev1.PodInitialized, corev1.ConditionTrue, early},
	} {
		found := slices.IndexFunc(row.conditions, func(c corev1.PodCondition) bool { return c.Type == row.kind })
		if found < 0 {
			t.Errorf("%s: there is no %s", row.promise, row.kind)
		} else if c := row.conditions[found]; c.Status != row.status || c.LastTransitionTime != row.since {
			t.Errorf("%s: %s since %v, want %s since %v", row.promise, c.Status, c.LastTransitionTime, row.status, row.since)
		}
	}
}

// memory holds Secrets and ConfigMaps for tests.
type memory map[string]map[string][]byte

func (m memory) secret(name string) (map[string][]byte, error)    { return m["secret/"+name], nil }
func (m memory) configMap(name string) (map[string][]byte, error) { return m["config/"+name], nil }

var stored = memory{
	"secret/tls":  {"crt": []byte("C"), "key": []byte("K")},
	"config/conf": {"Corefile": []byte(".:53 {}")},
}

func TestEnvironment(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Name: "web-1", Namespace: "shop", UID: "u", Labels: map[string]string{"app": "web"},
	}}
	from := func(path string) *corev1.EnvVarSource {
		return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}
	}
	secret := func(name, key string, optional bool) *corev1.EnvVarSource {
		return &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
			LocalObjectReference: corev1.LocalObjectReference{Name: name}, Key: key, Optional: &optional,
		}}
	}
	for _, row := range []struct {
		promise string
		env     corev1.EnvVar
		want    string // of the variable; "!" and part of the error; "-" if there is no variable
	}{
		{"a value", corev1.EnvVar{Value: "1"}, "1"},
		{"a value with an earlier one in it", corev1.EnvVar{Value: "<$(FIRST)>"}, "<one>"},
		{"one that is not known stays", corev1.EnvVar{Value: "$(OTHER)"}, "$(OTHER)"},
		{"two dollars are one", corev1.EnvVar{Value: "$$(FIRST)"}, "$(FIRST)"},
		{"a dollar at the end", corev1.EnvVar{Value: "1$"}, "1$"},
		{"a bracket that is not closed", corev1.EnvVar{Value: "$(FIRST"}, "$(FIRST"},
		{"the name", corev1.EnvVar{ValueFrom: from("metadata.name")}, "web-1"},
		{"the namespace", corev1.EnvVar{ValueFrom: from("metadata.namespace")}, "shop"},
		{"a label", corev1.EnvVar{ValueFrom: from("metadata.labels['app']")}, "web"},
		{"the address", corev1.EnvVar{ValueFrom: from("status.podIP")}, "10.10.2.17"},
		{"both addresses", corev1.EnvVar{ValueFrom: from("status.podIPs")}, "10.10.2.17,2001:db8:12::17"},
		{"the node's address", corev1.EnvVar{ValueFrom: from("status.hostIP")}, "10.10.0.20"},
		{"a field that is not", corev1.EnvVar{ValueFrom: from("status.other")}, "!status.other"},
		{"a key of a Secret", corev1.EnvVar{ValueFrom: secret("tls", "key", false)}, "K"},
		{"one that is missing", corev1.EnvVar{ValueFrom: secret("tls", "ca", false)}, "!Secret tls has no key ca"},
		{"one that may be missing", corev1.EnvVar{ValueFrom: secret("none", "ca", true)}, "-"},
	} {
		row.env.Name = "IT"
		c := &corev1.Container{Env: []corev1.EnvVar{{Name: "FIRST", Value: "one"}, row.env}}
		known, err := environment(c, pod, []string{"10.10.2.17", "2001:db8:12::17"}, []string{"10.10.0.20"}, stored)
		got, there := known["IT"]
		switch {
		case err != nil && strings.HasPrefix(row.want, "!") && strings.Contains(err.Error(), row.want[1:]):
		case err != nil:
			t.Errorf("%s: %v", row.promise, err)
		case !there && row.want == "-":
		case got != row.want:
			t.Errorf("%s: %q, want %q", row.promise, got, row.want)
		}
	}
}

func TestCommandLine(t *testing.T) {
	known := map[string]string{"PORT": "53"}
	for _, row := range []struct {
		promise       string
		command, args []string
		want          []string
	}{
		{"an image is its program", nil, nil, []string{"/echo"}},
		{"arguments follow it, expanded", nil, []string{"-p", "$(PORT)"}, []string{"/echo", "-p", "53"}},
		{"a command takes its place", []string{"sh", "-c"}, []string{"true"}, []string{"sh", "-c", "true"}},
	} {
		c := &corev1.Container{Command: row.command, Args: row.args}
		if got := argv(c, "echo", known); !slices.Equal(got, row.want) {
			t.Errorf("%s: %q, want %q", row.promise, got, row.want)
		}
	}
}

func TestVolumes(t *testing.T) {
	yes := true
	secret := func(name string, optional *bool, items ...corev1.KeyToPath) corev1.Volume {
		return corev1.Volume{VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{
			SecretName: name, Optional: optional, Items: items,
		}}}
	}
	config := corev1.Volume{VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
		LocalObjectReference: corev1.LocalObjectReference{Name: "conf"},
	}}}
	for _, row := range []struct {
		promise string
		volume  corev1.Volume
		want    string // "path=content …", or "!" and part of the error
	}{
		{"a file for each key", secret("tls", nil), "crt=C key=K"},
		{"only the items, if there are any", secret("tls", nil, corev1.KeyToPath{Key: "crt", Path: "a/tls.crt"}), "a/tls.crt=C"},
		{"an item that is missing", secret("tls", nil, corev1.KeyToPath{Key: "ca", Path: "ca"}), "!no key ca"},
		{"an item that leaves the volume", secret("tls", nil, corev1.KeyToPath{Key: "crt", Path: "../crt"}), "!leaves the volume"},
		{"a Secret that is missing", secret("none", nil), "!Secret none is not there"},
		{"one that may be missing", secret("none", &yes), ""},
		{"a ConfigMap", config, "Corefile=.:53 {}"},
		{"an empty directory", corev1.Volume{VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}, ""},
		{"the machine's files are not for pods", corev1.Volume{VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}}, "!does not do"},
	} {
		files, err := volumeFiles(&row.volume, stored)
		var list []string
		for path, content := range files {
			list = append(list, path+"="+string(content))
		}
		slices.Sort(list)
		got := strings.Join(list, " ")
		if err != nil {
			got = "!" + err.Error()
		}
		if got != row.want && (!strings.HasPrefix(row.want, "!") || !strings.Contains(got, row.want[1:])) {
			t.Errorf("%s: %q, want %q", row.promise, got, row.want)
		}
	}
}

func TestNumbers(t *testing.T) {
	pods4, pods6 := netip.MustParsePrefix("10.10.2.0/24"), netip.MustParsePrefix("2001:db8:12::/64")
	for _, row := range []struct {
		number int
		v4, v6 string
	}{
		{1, "10.10.2.1", "2001:db8:12::1"},
		{17, "10.10.2.17", "2001:db8:12::17"},
		{250, "10.10.2.250", "2001:db8:12::250"},
	} {
		if v4, v6 := numbered(pods4, row.number), numbered(pods6, row.number); v4.String() != row.v4 || v6.String() != row.v6 {
			t.Errorf("%d: %v and %v, want %s and %s", row.number, v4, v6, row.v4, row.v6)
		}
	}
	n := newNumbers()
	first, _ := n.take()
	n.give(first)
	for range numberLast - numberFirst {
		if again, err := n.take(); err != nil || again == first {
			t.Fatalf("%d was given again before all others (%v)", first, err)
		}
	}
	if again, err := n.take(); err != nil || again != first {
		t.Fatalf("%d comes last, not %d (%v)", first, again, err)
	}
	if _, err := n.take(); err != errNoNumber {
		t.Fatalf("more numbers than there are: %v", err)
	}
}

type closing struct{ bytes.Buffer }

func (*closing) Close() error { return nil }

func TestLogs(t *testing.T) {
	kept := &closing{}
	seconds := int64(0)
	log := &stampedLog{out: kept, now: func() time.Time { seconds++; return time.Unix(seconds, 0) }}
	for _, text := range []string{"on", "e\ntwo\n", "three\nfo", "ur"} {
		if _, err := io.WriteString(log, text); err != nil {
			t.Fatal(err)
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ promise, query, want string }{
		{"all of it, in whole lines", "", "one\ntwo\nthree\nfour\n"},
		{"since a time", "sinceTime=1970-01-01T00:00:03Z", "three\nfour\n"},
		{"since some seconds ago", "sinceSeconds=7", "three\nfour\n"},
		{"the last lines", "tailLines=2", "three\nfour\n"},
		{"none of them", "tailLines=0", ""},
		{"with the times", "tailLines=1&timestamps=true", "1970-01-01T00:00:04Z four\n"},
		{"so many bytes", "limitBytes=5", "one\nt"},
		{"a number that is none", "tailLines=x", "!tailLines=x"},
		{"a negative number", "limitBytes=-1", "!limitBytes=-1"},
		{"a time that is none", "sinceTime=now", "!sinceTime"},
	} {
		values, err := url.ParseQuery(row.query)
		if err != nil {
			t.Fatal(err)
		}
		var got strings.Builder
		query, err := parseLogQuery(values, time.Unix(10, 0))
		if err == nil {
			err = copyLog(context.Background(), &got, bytes.NewReader(kept.Bytes()), query)
		}
		if err != nil {
			got.WriteString("!" + err.Error())
		}
		if got.String() != row.want && (!strings.HasPrefix(row.want, "!") || !strings.HasPrefix(got.String(), row.want)) {
			t.Errorf("%s: %q, want %q", row.promise, got.String(), row.want)
		}
	}
}

func TestUnsupported(t *testing.T) {
	exec := &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{}}}
	tcp := &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{}}}
	for _, row := range []struct {
		promise   string
		pod       corev1.PodSpec
		container corev1.Container
		want      string
	}{
		{"a plain container", corev1.PodSpec{}, corev1.Container{}, ""},
		{"a probe of a port", corev1.PodSpec{}, corev1.Container{ReadinessProbe: tcp}, ""},
		{"a probe by a command", corev1.PodSpec{}, corev1.Container{ReadinessProbe: exec}, "httpGet and tcpSocket"},
		{"a liveness probe", corev1.PodSpec{}, corev1.Container{LivenessProbe: tcp}, "liveness"},
		{"an init container", corev1.PodSpec{InitContainers: []corev1.Container{{}}}, corev1.Container{}, "init containers"},
	} {
		err := unsupported(&row.pod, &row.container)
		if (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %q", row.promise, err, row.want)
		}
	}
}
