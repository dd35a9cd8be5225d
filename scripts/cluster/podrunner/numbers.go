package main

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
)

// The pods' numbers: .1 is the bridge, .255 nobody.
const (
	numberFirst = 10
	numberLast  = 250
)

var errNoNumber = errors.New("every pod address is taken; there are 241")

// numbers gives each pod a number, the one longest unused, so that a new pod does not at once get
// the connections of one that has just gone.
type numbers struct {
	mu   sync.Mutex
	free []int
}

func newNumbers() *numbers {
	n := &numbers{}
	for number := numberFirst; number <= numberLast; number++ {
		n.free = append(n.free, number)
	}
	return n
}

func (n *numbers) take() (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.free) == 0 {
		return 0, errNoNumber
	}
	number := n.free[0]
	n.free = n.free[1:]
	return number, nil
}

func (n *numbers) give(number int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.free = append(n.free, number)
}

// numbered is the address of that number: the last byte in IPv4; in IPv6 the last 16 bits read as
// the same digits, as everywhere in the lab: .17 and ::17.
func numbered(prefix netip.Prefix, number int) netip.Addr {
	if prefix.Addr().Is4() {
		bytes := prefix.Masked().Addr().As4()
		bytes[3] = byte(number)
		return netip.AddrFrom4(bytes)
	}
	bytes := prefix.Masked().Addr().As16()
	bytes[14], bytes[15] = byte(number/100), byte(number/10%10<<4|number%10)
	return netip.AddrFrom16(bytes)
}

func addressesOf(o *options, number int) []string {
	return []string{numbered(o.pods4, number).String(), numbered(o.pods6, number).String()}
}

func namespaceName(prefix string, number int) string { return fmt.Sprintf("%s%d", prefix, number) }

func namespacePath(prefix string, number int) string {
	return "/run/netns/" + namespaceName(prefix, number)
}
