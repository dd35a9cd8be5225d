// conformance-table prints the suite's report as a table: a line a profile, and the names of what
// failed. Its exit code is 0 only if every profile has passed core and extended tests whole.
//
//	conformance-table report.yaml
package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	v1 "sigs.k8s.io/gateway-api/conformance/apis/v1"
	"sigs.k8s.io/yaml"
)

func main() {
	passed, err := run(os.Args[1:], os.Stdout)
	if err != nil {
		fmt.Fprintf(os.Stderr, "conformance-table: %v\n", err)
		os.Exit(2)
	}
	if !passed {
		os.Exit(1)
	}
}

func run(arguments []string, to io.Writer) (bool, error) {
	if len(arguments) != 1 {
		return false, fmt.Errorf("usage: conformance-table report.yaml")
	}
	text, err := os.ReadFile(arguments[0])
	if err != nil {
		return false, err
	}
	var report v1.ConformanceReport
	if err := yaml.UnmarshalStrict(text, &report); err != nil {
		return false, fmt.Errorf("%s: %w", arguments[0], err)
	}
	return table(&report, to)
}

// table says whether every test of every profile passed, none skipped.
func table(report *v1.ConformanceReport, to io.Writer) (bool, error) {
	out := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintf(out, "%s, %s channel, %s mode\n", report.GatewayAPIVersion, report.GatewayAPIChannel, report.Mode)
	fmt.Fprintln(out, "profile\tcore\textended\tfeatures")
	passed := len(report.ProfileReports) > 0
	var notes []string
	for _, profile := range report.ProfileReports {
		core := counted(profile.Core)
		extended, features := "-", "-"
		notes = append(notes, names(profile.Name, "core", profile.Core)...)
		passed = passed && whole(profile.Core)
		if more := profile.Extended; more != nil {
			extended = counted(more.Status)
			features = fmt.Sprintf("%d/%d", len(more.SupportedFeatures), len(more.SupportedFeatures)+len(more.UnsupportedFeatures))
			notes = append(notes, names(profile.Name, "extended", more.Status)...)
			passed = passed && whole(more.Status)
		}
		fmt.Fprintf(out, "%s\t%s\t%s\t%s\n", profile.Name, core, extended, features)
	}
	for _, note := range notes {
		fmt.Fprintln(out, note)
	}
	return passed, out.Flush()
}

func counted(status v1.Status) string {
	all := status.Statistics.Passed + status.Statistics.Failed + status.Statistics.Skipped
	return fmt.Sprintf("%d/%d", status.Statistics.Passed, all)
}

func whole(status v1.Status) bool {
	return status.Result == v1.Success && status.Statistics.Failed+status.Statistics.Skipped == 0
}

func names(profile, level string, status v1.Status) []string {
	var lines []string
	for what, list := range map[string][]string{"failed": status.FailedTests, "skipped": status.SkippedTests} {
		if len(list) > 0 {
			lines = append(lines, fmt.Sprintf("%s %s %s: %s", profile, level, what, strings.Join(list, ", ")))
		}
	}
	return lines
}
