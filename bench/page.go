package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// page is docs/performance.md. on are the samples of each VMM, in order; those of networks
// may be nil.
func page(on []*samples, networks *samples) string {
	var b strings.Builder
	b.WriteString(pageHead)
	for _, s := range on {
		fmt.Fprintf(&b, "\n## On %s\n\n%s\n", s.about("vmm"), pageCircumstances(s))
		b.WriteString(pageDuels(s))
		b.WriteString(pageSafety(s))
		b.WriteString(pageFleet(s))
	}
	b.WriteString(pageNetwork(networks))
	return b.String()
}

const pageHead = `# Performance: beside peers, and with many VMs

<!-- Made of bench/samples by: cd bench && go test -run Page . -update. Do not edit. -->

How fast the provider is, beside a floor and a peer, on one machine and in one run.
Numbers of another machine differ; the ratios should not by much.

- **provider**: ` + "`CreateVM` and `StartVM`, `StopVM` and `DestroyVM`" + `, as an operator's program
  calls them, with all that belongs to them: a record that survives a power cut and a
  crash at any instruction, a lock that several programs share, a process that outlives
  the program, its identity proven, its console and log bounded.
- **floor**: the least that a program can do: spawn the VMM, connect, send the same
  requests over one connection, later pause, SIGTERM, wait and remove the directory.
  Nothing of it survives anything.
- **fctools**: the Rust crate fctools 0.6.0 (` + "`Vm::prepare`, `start`, `shutdown`, `cleanup`" + `) in a
  release build. It keeps no record, and asks the API without a pause until it answers.

All run the same guest (a few hundred bytes, see internal/tinyguest; the emulator's null
engine runs none) with 1 vCPU, 128 MiB and a read-only root disk. They take turns, one
after the other in each round, so that what the machine does besides hits all alike.

To measure anew, in under 8 minutes on a quiet machine, and to make this page of it:

` + "```" + `
make bench FIRECRACKER=/path/to/firecracker
cd bench && go test -run Page . -update
` + "```" + `

Without ` + "`FIRECRACKER`" + ` only the emulator is measured, without cargo the peer is left out,
and so are networks for whom is not root; each is said in one line. ` + "`SCRATCH=dir`" + ` names a
directory on the disk to measure. The samples in bench/samples are in the format of Go's
benchmarks, one line each: ` + "`benchstat -col /by bench/samples/firecracker.txt`" + ` compares them.
`

func pageCircumstances(s *samples) string {
	return busy(s.about("load")) + fmt.Sprintf("%s; %s; %s; %s; commit %s, %s; peer: %s.\n",
		s.about("cpu"), s.about("machine"), s.about("disk"), s.about("go"), s.about("commit"), s.about("date"), s.about("peer"))
}

// busy warns of samples that were taken beside other work.
func busy(load string) string {
	if x, err := strconv.ParseFloat(load, 64); err == nil && x <= 1 {
		return ""
	}
	return "**Preliminary: the machine was busy with other work (load average " + load + " before the run).** Whoever sleeps,\nand the provider's syncs above all, waits behind it; the peer, which asks without a pause, waits least.\n\n"
}

// half and most of the samples are at or below these, in milliseconds.
func ms(s *samples, q float64, name string, pairs ...any) float64 {
	return quantile(s.all(title(name, pairs...), "ns/op"), q) / 1e6
}

// The goals of the comparison.
const (
	goalLatency    = 1.10 // of the floor, at most
	goalThroughput = 0.90 // of the better of the two, at least
)

// contenders are those that took part, in the order of the table's columns.
func contenders(s *samples) (by, says []string) {
	for _, c := range []struct{ name, says string }{
		{"provider", "provider"}, {"provider-tmpfs", "its state in memory"}, {"floor", "floor"}, {"fctools", "fctools"},
	} {
		if len(s.all(title("CreateStart", "at", 1, "by", c.name), "ns/op")) > 0 {
			by, says = append(by, c.name), append(says, c.says)
		}
	}
	return by, says
}

var verbs = []struct{ name, says string }{{"CreateStart", "create and start"}, {"StopDestroy", "stop and destroy"}}

func tableHead(columns ...string) string {
	return "| | " + strings.Join(columns, " | ") + " |\n" + strings.Repeat("| --- ", len(columns)+1) + "|\n"
}

func pageDuels(s *samples) string {
	by, says := contenders(s)
	peer := slices.Contains(by, "fctools")
	var b strings.Builder
	fmt.Fprintf(&b, "One at a time, milliseconds, median (and 90th percentile) of %d:\n\n", len(s.all(title("CreateStart", "at", 1, "by", "provider"), "ns/op")))
	columns := append(slices.Clone(says), "provider / floor")
	wants := fmt.Sprintf("≤ %.2f of the floor", goalLatency)
	if peer {
		columns = append(columns, "provider / fctools")
		wants += ", ≤ 1 of fctools"
	}
	b.WriteString(tableHead(append(columns, "goal")...))
	for _, what := range verbs {
		fmt.Fprintf(&b, "| %s |", what.says)
		at := map[string]float64{}
		for _, who := range by {
			at[who] = ms(s, 0.5, what.name, "at", 1, "by", who)
			fmt.Fprintf(&b, " %.2f (%.1f) |", at[who], ms(s, 0.9, what.name, "at", 1, "by", who))
		}
		fmt.Fprintf(&b, " %.2f |", at["provider"]/at["floor"])
		met := at["provider"] <= goalLatency*at["floor"]
		if peer {
			fmt.Fprintf(&b, " %.2f |", at["provider"]/at["fctools"])
			met = met && at["provider"] <= at["fctools"]
		}
		fmt.Fprintf(&b, " %s |\n", goal(met, wants))
	}
	fmt.Fprintf(&b, "\n50 at a time, VMs per second, median of %d:\n\n", len(s.all(title("CreateStart", "at", 50, "by", "provider"), "ns/op")))
	b.WriteString(tableHead(append(slices.Clone(says), "provider / the better", "goal")...))
	for _, what := range verbs {
		fmt.Fprintf(&b, "| %s |", what.says)
		at := map[string]float64{}
		for _, who := range by {
			at[who] = 1000 / ms(s, 0.5, what.name, "at", 50, "by", who)
			fmt.Fprintf(&b, " %.0f |", at[who])
		}
		ratio := at["provider"] / math.Max(at["floor"], at["fctools"])
		fmt.Fprintf(&b, " %.2f | %s |\n", ratio, goal(ratio >= goalThroughput, fmt.Sprintf("≥ %.2f", goalThroughput)))
	}
	return b.String()
}

func goal(met bool, what string) string {
	if met {
		return what + ": met"
	}
	return what + ": **not met**"
}

// pageSafety is what the difference to the floor buys.
func pageSafety(s *samples) string {
	var b strings.Builder
	b.WriteString("\nWhat the provider does more than the floor, milliseconds for one VM, medians:\n\n")
	b.WriteString(tableHead("create and start", "stop and destroy"))
	row := func(says string, f func(verb string) float64) {
		fmt.Fprintf(&b, "| %s | %.2f | %.2f |\n", says, f("CreateStart"), f("StopDestroy"))
	}
	one := func(verb, who string) float64 { return ms(s, 0.5, verb, "at", 1, "by", who) }
	cpu := func(verb, who string) float64 {
		return quantile(s.all(title(verb, "at", 50, "by", who), "cpu-ns/op"), 0.5) / 1e6
	}
	row("all of it, one at a time", func(verb string) float64 { return one(verb, "provider") - one(verb, "floor") })
	if by, _ := contenders(s); slices.Contains(by, "provider-tmpfs") {
		row("of it the disk: gone with the state in memory", func(verb string) float64 { return one(verb, "provider") - one(verb, "provider-tmpfs") })
		row("CPU of the provider's program, 50 at a time, state in memory", func(verb string) float64 { return cpu(verb, "provider-tmpfs") })
	}
	row("CPU of the provider's program, 50 at a time", func(verb string) float64 { return cpu(verb, "provider") })
	row("CPU of the floor's program, 50 at a time", func(verb string) float64 { return cpu(verb, "floor") })
	fmt.Fprintf(&b, `
A durable record costs %.2f ms for its contents (fdatasync) and %.2f ms for its name
(rename and fsync of the directory) on this disk, median of %d. Each verb writes one
before it returns: the contents while the VMM is at work, the name when it is done.
`, ms(s, 0.5, "Piece", "sync", "file"), ms(s, 0.5, "Piece", "sync", "name"), len(s.all(title("Piece", "sync", "file"), "ns/op")))
	switch s.about("disk") {
	case noJournal:
		b.WriteString(`
This file system has no journal. Such an ext4 looks, for each file that is made, at all
that were removed in the last minutes (recently_deleted in fs/ext4/ialloc.c), so that the
many short-lived files of a benchmark make each other slow, and those who make the most
files the slowest. With a journal, or on xfs or btrfs, this does not exist.
`)
	case "ext4 in a file":
		b.WriteString(`
The machine's own ext4 has no journal, and would have measured itself (see
bench/disk.go): all contenders work on an ext4 with a journal in a file on it, where a
sync takes about twice as long.
`)
	}
	return b.String()
}

// sizes are the numbers that a benchmark's names end with, in order.
func (s *samples) sizes(name, key string) []int {
	var ns []int
	for _, l := range s.lines {
		var n int
		if _, err := fmt.Sscanf(l.name, title(name, key, "%d"), &n); err == nil && !slices.Contains(ns, n) {
			ns = append(ns, n)
		}
	}
	slices.Sort(ns)
	return ns
}

func pageFleet(s *samples) string {
	running := s.sizes("Open", "running")
	if len(running) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("\n### Many VMs\n\nQueries, milliseconds, median. A record that was read is kept in memory until it changes.\n\n| VMs | state | Open | ListVMs | of it for one VM, µs | GetVM |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, state := range []string{"stopped", "running"} {
		for _, n := range s.sizes("ListVMs", state) {
			list := ms(s, 0.5, "ListVMs", state, n)
			fmt.Fprintf(&b, "| %d | %s | %.1f | %.2f | %.0f | %.3f |\n", n, state, ms(s, 0.5, "Open", state, n), list, list*1000/float64(n), ms(s, 0.5, "GetVM", state, n))
		}
	}
	most := running[len(running)-1]
	open := ms(s, 0.5, "Open", "running", most)
	fmt.Fprintf(&b, "\nOpening a state directory with %d running VMs adopts all of them: %.0f ms, median of %d (goal 1,000 in 500 ms: %s).\n",
		most, open, len(s.all(title("Open", "running", most), "ns/op")), goal(most >= 1000 && open <= 500, "≤ 500 ms"))
	if most < 1000 {
		fmt.Fprintf(&b, "More than %d emulators did not fit into this machine's memory.\n", most)
	}
	b.WriteString("\nWhat one VM costs the operator's program, at " + fmt.Sprint(most) + " VMs:\n\n| | memory, KiB | goroutines | descriptors |\n| --- | --- | --- | --- |\n")
	for _, how := range []struct{ name, says string }{{"made", "made by it"}, {"adopted", "adopted by it"}} {
		name := title("Footprint", how.name, most)
		fmt.Fprintf(&b, "| %s | %.1f | %.2f | %.2f |\n", how.says, quantile(s.all(name, "B/vm"), 0.5)/1024, quantile(s.all(name, "goroutines/vm"), 0.5), quantile(s.all(name, "descriptors/vm"), 0.5))
	}
	b.WriteString("| goal | < 64 | ≤ 1 | ≤ 4 |\n")
	fmt.Fprintf(&b, "\nDestroying a running VM until its process, its sockets and its files are seen to be gone: %.2f ms one at a time (median of %d), %.2f ms for each of 50 at a time.\n",
		ms(s, 0.5, "DestroyToClean", "at", 1), len(s.all(title("DestroyToClean", "at", 1), "ns/op")), ms(s, 0.5, "DestroyToClean", "at", 50))
	return b.String()
}
