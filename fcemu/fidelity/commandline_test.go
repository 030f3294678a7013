package fidelity

import "strings"

func commandLineSequences() []sequence {
	var list []sequence
	sock := "--api-sock a.sock "
	for _, line := range []string{
		"--version", "--help", "-h", "-V", "--snapshot-version", "--bogus --version", "--version --bogus", "--bogus", "bogus", "-x", "--", "--id=a --version", "--id=a", "--id", "--id --api-sock", "--id a --id b", "--version --version", "--no-api",
		"--no-seccomp --seccomp-filter x", "--describe-snapshot nope", "--describe-snapshot text", "--describe-snapshot empty", "--describe-snapshot folder", "--describe-snapshot", "--snapshot-version extra", "--no-api true",
		sock + "--level loud", sock + "--level", sock + "--id a_b", sock + "--id " + strings.Repeat("a", 65), sock + "--id ä_", sock + "--config-file nope", sock + "--config-file folder", sock + "--config-file text", sock + "--config-file empty", sock + "--config-file bad.json", sock + "--config-file typo.json", sock + "--config-file nokernel.json",
		sock + "--metadata nope", sock + "--metadata text", sock + "--http-api-max-payload-size x", sock + "--http-api-max-payload-size -1", sock + "--mmds-size-limit x", sock + "--start-time-us x", sock + "--start-time-cpu-us x", sock + "--parent-cpu-time-us x",
		sock + "--log-path no/log", sock + "--log-path folder", sock + "--metrics-path no/m", sock + "--metrics-path folder", sock + "--seccomp-filter nope", "--api-sock text", "--api-sock folder", "--api-sock no/a.sock", "--api-sock " + strings.Repeat("x", 108),
		"--no-api --config-file bad.json", "--no-api --config-file nope", "--no-api --config-file nokernel.json", "--no-api --config-file text", "--no-api --api-sock text --config-file bad.json",
	} {
		list = append(list, sequence{name: brief(line), alone: true, args: strings.Fields(line)})
	}
	for _, args := range []string{"--id a-1", "--id " + strings.Repeat("a", 64), "--id é", "--level off", "--level WARNING", "--level trace --show-level --show-log-origin --module x", "--enable-pci", "--boot-timer", "--no-seccomp", "--metrics-path m",
		"--start-time-us 1 --start-time-cpu-us 1 --parent-cpu-time-us 1", "--mmds-size-limit 5", "-- --bogus"} {
		list = append(list, sequence{name: "with an API: " + args, args: strings.Fields(args), steps: []string{"GET /version"}})
	}
	for _, file := range []string{"vm.json", "all.json"} {
		for _, more := range []string{"", " --enable-pci", " --metadata meta.json"} {
			list = append(list, sequence{name: "a guest from " + file + more, guest: true, args: strings.Fields("--config-file " + file + more), steps: []string{"GET /vm/config", `PATCH /vm {"state":"Paused"}`, "GET /mmds"}})
		}
	}
	return list
}
