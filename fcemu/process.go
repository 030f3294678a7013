package fcemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/sys/unix"
)

// The exit codes of Firecracker that are not 0 and 1.
const (
	// ExitAbort stands for the original's panics: the process should end
	// itself with SIGABRT, which a shell shows as this code.
	ExitAbort            = 134
	exitBadConfiguration = 152
	exitArguments        = 153
)

// Process is one run of the emulator, as far as a program decides it.
type Process struct {
	Args []string // without the program's name
	// The descriptors of the standard streams. Stdout becomes non-blocking
	// when a guest starts, as with the original.
	Stdin, Stdout, Stderr int
	// Engine is used unless --engine names another: FCEMU_ENGINE.
	Engine string
	// EmulateVersion is the release to emulate unless --emulate-version names
	// another: FCEMU_EMULATE_VERSION. Empty is EmulatedVersion.
	EmulateVersion string
	// Fault has the faults to have unless --fault names others: FCEMU_FAULT.
	// See docs/emulator.md.
	Fault   string
	Engines map[string]Factory
	// Auto says which engine "auto" means on this machine.
	Auto func() (string, error)
}

// EndedBySignal is the cause with which the context of Run is cancelled to end
// the process as by a signal that the original catches.
type EndedBySignal struct{ Signal unix.Signal }

func (e EndedBySignal) Error() string { return "ended by signal " + e.Signal.String() }

// ExitCodeOf is the exit code with which Firecracker answers a signal that it
// catches and that ends it.
func ExitCodeOf(s unix.Signal) (code int, caught bool) {
	code, caught = map[unix.Signal]int{
		unix.SIGSYS: 148, unix.SIGBUS: 149, unix.SIGSEGV: 150, unix.SIGXFSZ: 151,
		unix.SIGXCPU: 154, unix.SIGHUP: 156, unix.SIGILL: 157,
	}[s]
	return code, caught
}

// exit is an error that ends the process with a code.
type exit struct {
	code  int
	msg   string // for the log
	debug string // for standard error, in the shape of the original's
}

func (e *exit) Error() string { return e.msg }

func fail(debug, msg string) *exit { return &exit{1, msg, debug} }

// panicked is a mistake of the user that makes the original panic: a line in
// the log, nothing on standard error, SIGABRT.
func panicked(msg string) *exit { return &exit{ExitAbort, msg, ""} }

// Run runs the process until its guest ends or ctx does, and returns the exit
// code.
func (p *Process) Run(ctx context.Context) int {
	log := newLogger("anonymous-instance", p.Stdout)
	defer log.close()
	err := p.run(ctx, log)
	var e *exit
	switch {
	case err == nil:
		log.log(srcMain, LevelInfo, "Firecracker exiting successfully. exit_code=0")
		return 0
	case !errors.As(err, &e):
		e = fail(err.Error(), err.Error())
	case e.code == ExitAbort:
		log.log(srcMain, LevelError, "Firecracker panicked at fcemu: %s", e.msg)
		return e.code
	}
	log.log(srcMain, LevelError, "%s", e.msg)
	writeOrDrop(p.Stderr, []byte("Error: "+e.debug+"\n"))
	log.log(srcMain, LevelError, "Firecracker exiting with error. exit_code=%d", e.code)
	return e.code
}

func (p *Process) print(s string) { writeOrDrop(p.Stdout, []byte(s)) }

func (p *Process) run(ctx context.Context, log *logger) error {
	var args arguments
	var mishaps []*mishap
	rel, err := emulated(p.Args, p.EmulateVersion)
	if err == nil {
		args, err = parseArguments(p.Args, rel)
	}
	if err == nil {
		mishaps, err = parseMishaps(p.faults(args))
	}
	if err != nil {
		return &exit{exitArguments, "Arguments parsing error: " + err.Error() + "\n\nFor more information try --help.",
			"ParseArguments(" + strconv.Quote(err.Error()) + ")"}
	}
	title := "Firecracker v" + rel.reported() + "\n"
	switch {
	case args.present("help"):
		p.print(title + "\n" + helpText(rel))
		return nil
	case args.present("version"):
		p.print(title + "Engine: " + p.engineText(args) + "\n\n")
		return nil
	case args.present("snapshot-version"):
		p.print("v" + rel.format.String() + "\n")
		return nil
	case args.present("describe-snapshot"):
		return p.describe(args.values["describe-snapshot"])
	}
	return p.serve(ctx, log, rel, args, mishaps)
}

func (p *Process) faults(args arguments) string {
	if text, ok := args.lookup(faultFlag); ok {
		return text
	}
	return p.Fault
}

// engineText describes the engine that would be used, for --version.
func (p *Process) engineText(args arguments) string {
	name, err := p.engineName(args)
	if err != nil {
		return "none (" + err.Error() + ")"
	}
	return name
}

func (p *Process) engineName(args arguments) (string, error) {
	name, ok := args.lookup("engine")
	if !ok {
		name = p.Engine
	}
	if name == "" || name == "auto" {
		if p.Auto == nil {
			return "", errors.New("no engine was named (--engine)")
		}
		return p.Auto()
	}
	if p.Engines[name] == nil {
		return "", fmt.Errorf("--engine %s: want null, qemu or auto", name)
	}
	return name, nil
}

func (p *Process) describe(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fail("PrintSnapshotDataFormat(OpenSnapshot)", "When printing Snapshot Data format: Unable to open snapshot state file: "+osText(err))
	}
	defer f.Close()
	v, err := readFormat(f)
	if err != nil {
		return fail("PrintSnapshotDataFormat(SnapshotVersion)", "When printing Snapshot Data format: Invalid data format version of snapshot file: "+err.Error())
	}
	p.print("v" + v.String() + "\n")
	return nil
}

// settings are the command line, understood.
type settings struct {
	id               string
	engine           string
	maxBody          int
	mmdsLimit        int
	config, metadata []byte // nil: not given
	apiSock          string // empty: no API
	pci, bootTimer   bool
	mishaps          []*mishap
	startMetrics     map[string]uint64
}

// settle reads the command line's values in the order in which the original
// does, so that of several mistakes the same one shows.
func (p *Process) settle(rel release, args arguments, log *logger, m *metrics) (*settings, error) {
	s := &settings{id: args.values["id"], pci: args.present("enable-pci"), bootTimer: args.present("boot-timer")}
	if !validInstanceID(s.id) {
		return nil, panicked("Invalid instance ID: want 1 to 64 letters, digits and '-': " + strconv.Quote(s.id))
	}
	log.id = s.id
	if err := p.configureLog(args, log); err != nil {
		return nil, err
	}
	log.log(srcMain, LevelInfo, "Running Firecracker v%s", rel.reported())
	if path, ok := args.lookup("metrics-path"); ok {
		if err := m.open(MetricsConfig{Path: path}); err != nil {
			return nil, fail("MetricsInitialization("+strconv.Quote(err.Error())+")", "Could not initialize metrics: "+osText(err))
		}
	}
	if path, ok := args.lookup("seccomp-filter"); ok {
		if _, err := os.ReadFile(path); err != nil {
			return nil, fail("SeccompFilter(FileOpen)", "Seccomp error: Filter file: "+osText(err))
		}
	}
	var err error
	if s.config, err = readGiven(args, "config-file"); err != nil {
		return nil, panicked("Unable to open or read from the configuration file: " + osText(err))
	}
	if s.metadata, err = readGiven(args, "metadata"); err != nil {
		return nil, panicked("Unable to open or read from the mmds content file: " + osText(err))
	}
	if s.maxBody, err = strconv.Atoi(args.values["http-api-max-payload-size"]); err != nil || s.maxBody < 0 {
		return nil, panicked("'http-api-max-payload-size' parameter expected to be of 'usize' type.")
	}
	s.mmdsLimit = s.maxBody
	if v, ok := args.lookup("mmds-size-limit"); ok {
		if s.mmdsLimit, err = strconv.Atoi(v); err != nil || s.mmdsLimit < 0 {
			return nil, panicked("'mmds-size-limit' parameter expected to be of 'usize' type.")
		}
	}
	if args.present("no-api") {
		return s, nil
	}
	s.apiSock = args.values["api-sock"]
	return s, s.times(args)
}

func readGiven(args arguments, name string) ([]byte, error) {
	path, ok := args.lookup(name)
	if !ok {
		return nil, nil
	}
	b, err := os.ReadFile(path)
	if b == nil {
		b = []byte{}
	}
	return b, err
}

func (p *Process) configureLog(args arguments, log *logger) error {
	var cfg LoggerConfig
	yes := true
	if v, ok := args.lookup("log-path"); ok {
		cfg.LogPath = &v
	}
	if v, ok := args.lookup("level"); ok {
		l, known := ParseLevel(v)
		if !known {
			return &exit{exitBadConfiguration, "Invalid value for logger level: Failed to parse string to level filter: " + v +
				". Possible values: [Error, Warning, Info, Debug]", "InvalidLogLevel(" + strconv.Quote(v) + ")"}
		}
		cfg.Level = &l
	}
	if args.present("show-level") {
		cfg.ShowLevel = &yes
	}
	if args.present("show-log-origin") {
		cfg.ShowLogOrigin = &yes
	}
	if v, ok := args.lookup("module"); ok {
		cfg.Module = &v
	}
	if err := log.update(cfg); err != nil {
		return fail("LoggerInitialization("+strconv.Quote(err.Error())+")", "Could not initialize logger: Failed to open target file: "+osText(err))
	}
	return nil
}

// times keeps the launch times for the metrics.
func (s *settings) times(args arguments) error {
	s.startMetrics = map[string]uint64{}
	var parent uint64
	for _, name := range []string{"start-time-us", "start-time-cpu-us", "parent-cpu-time-us"} {
		text, ok := args.lookup(name)
		if !ok {
			continue
		}
		v, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return panicked("'" + name + "' parameter expected to be of 'u64' type.")
		}
		var ts unix.Timespec
		clock := int32(unix.CLOCK_MONOTONIC)
		if name == "start-time-cpu-us" {
			clock = unix.CLOCK_PROCESS_CPUTIME_ID
		}
		if err := unix.ClockGettime(clock, &ts); err != nil {
			return fmt.Errorf("clock_gettime: %w", err)
		}
		now := uint64(ts.Nano() / 1000)
		switch name {
		case "start-time-us":
			s.startMetrics["api_server.process_startup_time_us"] = now - min(now, v)
		case "start-time-cpu-us":
			s.startMetrics["api_server.process_startup_time_cpu_us"] = now - min(now, v)
		default:
			parent = v
		}
	}
	if _, ok := s.startMetrics["api_server.process_startup_time_cpu_us"]; ok {
		s.startMetrics["api_server.process_startup_time_cpu_us"] += parent
	}
	return nil
}

// validInstanceID is the rule for --id.
func validInstanceID(id string) bool {
	if len(id) < 1 || len(id) > 64 {
		return false
	}
	return !strings.ContainsFunc(id, func(r rune) bool {
		return r != '-' && !unicode.IsLetter(r) && !unicode.IsNumber(r)
	})
}
