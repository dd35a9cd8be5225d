package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const head = `apiVersion: gateway.networking.k8s.io/v1
kind: ConformanceReport
gatewayAPIVersion: v1.6.1
gatewayAPIChannel: standard
mode: default
profiles:
`

func profile(result, statistics, more string) string {
	return head + "- name: GATEWAY-TCP\n  summary: s\n  core: {result: " + result + ", statistics: " + statistics + more + "}\n"
}

func TestTable(t *testing.T) {
	all := "{Passed: 19, Failed: 0, Skipped: 0}"
	for _, row := range []struct {
		promise, report string
		passed          bool
		want            []string // parts of what is printed, or of the error
	}{
		{"all passed", profile("success", all, ""), true, []string{"v1.6.1, standard channel", "GATEWAY-TCP  19/19"}},
		{"one failed, by name", profile("failure", "{Passed: 18, Failed: 1, Skipped: 0}", ", failedTests: [A]"), false, []string{"18/19", "core failed: A"}},
		{"one skipped", profile("partial", "{Passed: 18, Failed: 0, Skipped: 1}", ", skippedTests: [B]"), false, []string{"18/19", "core skipped: B"}},
		{
			"an extended test failed", profile("success", all, "") +
				"  extended: {result: failure, statistics: {Passed: 9, Failed: 1, Skipped: 0}, failedTests: [C], supportedFeatures: [X], unsupportedFeatures: [Y, Z]}\n",
			false, []string{"19/19  9/10      1/3", "extended failed: C"},
		},
		{"no profile", strings.Replace(head, "profiles:\n", "profiles: []\n", 1), false, []string{"profile"}},
		{"no report", "- 1\n", false, []string{"report.yaml"}},
	} {
		path := filepath.Join(t.TempDir(), "report.yaml")
		if err := os.WriteFile(path, []byte(row.report), 0o644); err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		passed, err := run([]string{path}, &out)
		if err != nil {
			out.WriteString(err.Error())
		}
		if passed != row.passed {
			t.Errorf("%s: passed is %v", row.promise, passed)
		}
		for _, part := range row.want {
			if !strings.Contains(out.String(), part) {
				t.Errorf("%s: no %q in %q", row.promise, part, out.String())
			}
		}
	}
}
