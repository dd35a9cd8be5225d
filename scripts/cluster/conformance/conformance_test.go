// Package conformance is the official Gateway API suite as a program of ours: `go test -c` makes
// conformance.test of it, and the version in go.mod is the version the report names.
package conformance

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance"
)

// TestConformance takes everything it is to do from flags; see scripts/conformance.
func TestConformance(t *testing.T) { conformance.RunConformance(t) }
