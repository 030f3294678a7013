package main

import (
	"fmt"
	"slices"
	"strings"
)

// The goals for networks.
const (
	goalForks = 10   // times faster than forks, at least
	goalFlat  = 1.30 // of the time with one VM, with the most, at most
	goalSlot  = 1.5  // milliseconds for a slot, at most
	goalPath  = 0.95 // with the most VMs, of what it is with one, at least
)

func vms(n int) string {
	if n == 1 {
		return "1 VM"
	}
	return fmt.Sprintf("%d VMs", n)
}

// pageNetwork is the part about networks; s may be nil.
func pageNetwork(s *samples) string {
	if s == nil {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, pageNetworkHead, busy(s.about("load")), s.about("cpu"), s.about("machine"), s.about("disk"), s.about("go"), s.about("commit"), s.about("date"), s.about("forks"))
	at := s.sizes("Attach", "vms")
	few, most := at[0], at[len(at)-1]
	bys := []struct{ name, says string }{{"ready", "manager, from a slot that is ready"}, {"cold", "manager, with a new slot"}, {"forks", "forks"}}
	for _, what := range []struct{ name, says string }{{"Attach", "Attach"}, {"Detach", "Detach"}} {
		fmt.Fprintf(&b, "%s, milliseconds, median (and 90th percentile) of %d:\n\n", what.says, len(s.all(title(what.name, "vms", few, "by", "cold"), "ns/op")))
		columns := []string{}
		for _, n := range at {
			columns = append(columns, vms(n))
		}
		columns = append(columns, "forks / it, with "+vms(few), "with "+vms(most), fmt.Sprintf("%d / %d VMs", most, few))
		goals := what.name == "Attach"
		if goals {
			columns = append(columns, "goal")
		}
		b.WriteString(tableHead(columns...))
		median := func(n int, by string) float64 { return ms(s, 0.5, what.name, "vms", n, "by", by) }
		for _, by := range bys {
			fmt.Fprintf(&b, "| %s |", by.says)
			for _, n := range at {
				fmt.Fprintf(&b, " %.2f (%.1f) |", median(n, by.name), ms(s, 0.9, what.name, "vms", n, "by", by.name))
			}
			first, last, flat := median(few, "forks")/median(few, by.name), median(most, "forks")/median(most, by.name), median(most, by.name)/median(few, by.name)
			fmt.Fprintf(&b, " %.1f | %.1f | %.2f |", first, last, flat)
			if goals && by.name == "forks" {
				b.WriteString(" |")
			} else if goals {
				fmt.Fprintf(&b, " %s; %s |", goal(min(first, last) >= goalForks, fmt.Sprintf("≥ %d times faster", goalForks)), goal(flat <= goalFlat, fmt.Sprintf("≤ %.1f", goalFlat)))
			}
			b.WriteString("\n")
		}
		b.WriteString("\n")
	}
	slot := func(part string) float64 { return ms(s, 0.5, "Slot", "part", part) }
	fmt.Fprintf(&b, `A slot that is made ahead, one after the other in the background, costs %.2f ms (%s).
Of the kernel it asks at least an empty namespace (%.2f ms), a TAP (%.2f), a pair of links
(%.2f) and a mount (%.2f), measured without all else: %.2f ms.

`, slot("whole"), goal(slot("whole") <= goalSlot, fmt.Sprintf("≤ %.1f ms", goalSlot)), slot("namespace"), slot("TAP"), slot("pair"), slot("mount"),
		slot("namespace")+slot("TAP")+slot("pair")+slot("mount"))
	b.WriteString(pagePackets(s, at))
	return b.String()
}

const pageNetworkHead = `
## Networks

%s%s; %s; %s; %s; commit %s, %s; %s.

A VM gets a network and gives it back (` + "`network.Manager`, `Acquire` and `Release`" + `), with a policy of
four rules: a namespace with a TAP, a pair of links, an address, NAT, guards against forged
packets, counters and a name resolver, recorded so that it outlives every program. Beside
it, in turns, the usual way: nine forks of ` + "`ip` and `iptables`" + ` make a TAP in a bridge, a chain
with four rules and a jump to it, four take them away. All have as many VMs of their own
kind as the column says; the number goes up and down several times. The kernel ends
namespaces behind the back of whoever gave them back; each turn waits for that.

`

// pagePackets compares the packets' way with few VMs and with many.
func pagePackets(s *samples, at []int) string {
	var b strings.Builder
	few, most := at[0], at[len(at)-1]
	fmt.Fprintf(&b, "One VM's packets, while there are so many VMs with policies, median of %d:\n\n", len(s.all(title("Path", "vms", few, "what", "throughput"), "MB/s")))
	columns := []string{}
	for _, n := range at {
		columns = append(columns, vms(n))
	}
	b.WriteString(tableHead(append(columns, fmt.Sprintf("%d / %d VMs", most, few), "goal")...))
	for _, row := range []struct {
		what, unit, says string
		as               func(float64) float64
	}{
		{"throughput", "MB/s", "TCP from the guest to a server, MB/s", func(x float64) float64 { return x }},
		{"connection", "ns/op", "TCP connections one after the other, per second", func(x float64) float64 { return 1e9 / x }},
	} {
		value := func(n int) float64 {
			xs := s.all(title("Path", "vms", n, "what", row.what), row.unit)
			for i := range xs {
				xs[i] = row.as(xs[i])
			}
			slices.Sort(xs)
			return quantile(xs, 0.5)
		}
		fmt.Fprintf(&b, "| %s |", row.says)
		for _, n := range at {
			fmt.Fprintf(&b, " %.0f |", value(n))
		}
		ratio := value(most) / value(few)
		fmt.Fprintf(&b, " %.2f | %s |\n", ratio, goal(ratio >= goalPath, fmt.Sprintf("≥ %.2f", goalPath)))
	}
	b.WriteString("\nIn place of a guest there is a namespace behind the slot's TAP; frames have the offloads\nthat Firecracker gives them.\n")
	return b.String()
}
