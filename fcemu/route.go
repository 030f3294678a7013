package fcemu

import (
	"strings"
	"unicode"
)

// action is a request whose path and body are understood.
type action struct {
	do         func(*controller) ([]byte, *fault)
	deprecated bool
}

// route parses a request. Only the parts of the path that are named here are
// looked at: what follows them is ignored, as the original does.
func route(r request) (action, *fault) {
	tokens := pathTokens(r.uri)
	first, second := token(tokens, 0), token(tokens, 1)
	body := r.body != nil
	switch r.method {
	case "GET":
		if body {
			return action{}, refuse("GET request cannot have a body.")
		}
		return routeGet(r.rel, tokens, first, second)
	case "PUT":
		if !body {
			return action{}, refuse("Empty PUT request.")
		}
		return routePut(r, first, second, len(tokens) > 1)
	case "PATCH":
		if first == "balloon" {
			return routePatchBalloon(r, tokens)
		}
		if !body {
			return action{}, refuse("Empty PATCH request.")
		}
		return routePatch(r, first, second, len(tokens) > 1)
	}
	if body {
		return action{}, refuse("Empty Delete request.")
	}
	switch first {
	case "drives", "pmem", "network-interfaces":
		id, f := checkedID(second)
		if f != nil {
			return action{}, f
		}
		return simple(func(c *controller) ([]byte, *fault) { return nil, c.unplug(first, id) }), nil
	}
	return action{}, unknownPath("DELETE", first)
}

// pathTokens splits a path at its slashes, without the leading ones and
// without an empty last part.
func pathTokens(uri string) []string {
	path := uri
	if rest, ok := strings.CutPrefix(uri, "http://"); ok {
		i := strings.IndexByte(rest, '/')
		if i < 0 {
			return nil
		}
		path = rest[i:]
	} else if !strings.HasPrefix(uri, "/") {
		return nil
	}
	path = strings.TrimLeft(path, "/")
	if path == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(path, "/"), "/")
}

func token(tokens []string, i int) string {
	if i < len(tokens) {
		return tokens[i]
	}
	return ""
}

func unknownPath(method, what string) *fault {
	return refuse("Invalid request method and/or path: " + method + " " + what + ".")
}

// checkedID applies the rule for ids of devices.
func checkedID(id string) (string, *fault) {
	if id == "" {
		return "", refuse("The ID cannot be empty.")
	}
	for _, r := range id {
		if r != '_' && !unicode.IsLetter(r) && !unicode.IsNumber(r) {
			return "", refuse("API Resource IDs can only contain alphanumeric characters and underscores.")
		}
	}
	return id, nil
}

func simple(do func(*controller) ([]byte, *fault)) action { return action{do: do} }

// empty is an action whose success has no body.
func empty(do func(*controller) *fault) action {
	return action{do: func(c *controller) ([]byte, *fault) { return nil, do(c) }}
}

func bodyFault(err error) *fault {
	return refuse("An error occurred when deserializing the json body of a request: " + err.Error() + ".")
}

// decoded parses a body into T and makes the action that uses it.
func decoded[T any](r request, set func(*T) func(*node) error, do func(*controller, T) *fault) (action, *fault) {
	var v T
	if err := decodeBody(r.rel, r.body, set(&v)); err != nil {
		return action{}, bodyFault(err)
	}
	return empty(func(c *controller) *fault { return do(c, v) }), nil
}

// identified is decoded for a body that repeats the id of the path.
func identified[T any](r request, pathID string, set func(*T) func(*node) error, id func(T) string,
	do func(*controller, T) *fault) (action, *fault) {
	want, f := checkedID(pathID)
	if f != nil {
		return action{}, f
	}
	var v T
	if err := decodeBody(r.rel, r.body, set(&v)); err != nil {
		return action{}, bodyFault(err)
	}
	if id(v) != want {
		return action{}, refuse("The id from the path [" + want + "] does not match the id from the body [" + id(v) + "]!")
	}
	return empty(func(c *controller) *fault { return do(c, v) }), nil
}

func routeGet(rel *release, tokens []string, first, second string) (action, *fault) {
	switch first {
	case "":
		return simple((*controller).instanceInfo), nil
	case "version":
		return simple((*controller).version), nil
	case "vm":
		if second == "config" {
			return simple((*controller).vmConfig), nil
		}
	case "machine-config":
		return simple((*controller).machineConfig), nil
	case "mmds":
		return simple((*controller).mmdsData), nil
	case "hotplug":
		if second == "memory" && rel.knows("GET /hotplug/memory") {
			return simple((*controller).memoryStatus), nil
		}
	case "balloon":
		switch {
		case len(tokens) < 2:
			return simple((*controller).balloonConfig), nil
		case second == "statistics":
			return simple((*controller).balloonStats), nil
		case second != "hinting" || !rel.knows("GET /balloon/hinting/status"):
		case token(tokens, 2) == "status":
			return simple((*controller).hintingStatus), nil
		default:
			return action{}, refuse("Unrecognized GET request path `/hinting/" + token(tokens, 2) + "`.")
		}
		return action{}, refuse("Unrecognized GET request path `" + second + "`.")
	}
	return action{}, unknownPath("GET", first)
}

func routePut(r request, first, second string, hasSecond bool) (action, *fault) {
	switch first {
	case "actions":
		return decoded(r, setAction, (*controller).action)
	case "balloon":
		return decoded(r, setBalloon, (*controller).putBalloon)
	case "boot-source":
		return decoded(r, setBootSource, (*controller).putBootSource)
	case "cpu-config":
		raw := append([]byte(nil), r.body...)
		if err := decodeBody(r.rel, r.body, checkCPUTemplate); err != nil {
			return action{}, bodyFault(err)
		}
		return empty(func(c *controller) *fault { return c.putCPUConfig(raw) }), nil
	case "drives":
		return identified(r, second, setDrive, func(d Drive) string { return d.DriveID }, (*controller).putDrive)
	case "pmem":
		if !r.rel.knows("PUT /pmem/*") {
			break
		}
		return identified(r, second, setPmem, func(p Pmem) string { return p.ID }, (*controller).putPmem)
	case "network-interfaces":
		return identified(r, second, setNetworkInterface, func(n NetworkInterface) string { return n.IfaceID }, (*controller).putNetworkInterface)
	case "logger":
		return decoded(r, setLogger, (*controller).putLogger)
	case "serial":
		if !r.rel.knows("PUT /serial") {
			break
		}
		return decoded(r, setSerial, (*controller).putSerial)
	case "machine-config":
		return routePutMachine(r)
	case "metrics":
		return decoded(r, setMetrics, (*controller).putMetrics)
	case "mmds":
		return routePutMMDS(r, second, hasSecond)
	case "snapshot":
		return routePutSnapshot(r, second, hasSecond)
	case "vsock":
		var v Vsock
		if err := decodeBody(r.rel, r.body, setVsock(&v)); err != nil {
			return action{}, bodyFault(err)
		}
		a := empty(func(c *controller) *fault { return c.putVsock(v) })
		a.deprecated = v.VsockID != nil
		return a, nil
	case "entropy":
		return decoded(r, setEntropy, (*controller).putEntropy)
	case "hotplug":
		if second == "memory" && r.rel.knows("PUT /hotplug/memory") {
			return decoded(r, setMemoryHotplug, (*controller).putMemoryHotplug)
		}
	}
	return action{}, unknownPath("PUT", first)
}

func routePutMachine(r request) (action, *fault) {
	var m MachineConfig
	if err := decodeBody(r.rel, r.body, setMachineConfig(&m)); err != nil {
		return action{}, bodyFault(err)
	}
	// PUT is an update of everything, but for a template that is not there,
	// which leaves the old one.
	u := machineUpdate{&m.VCPUCount, &m.MemSizeMiB, &m.SMT, &m.TrackDirtyPages, m.CPUTemplate, &m.HugePages}
	a := empty(func(c *controller) *fault { return c.updateMachine(u) })
	a.deprecated = m.CPUTemplate != nil
	return a, nil
}

func routePutMMDS(r request, second string, hasSecond bool) (action, *fault) {
	switch {
	case !hasSecond:
		n, err := parseJSON(r.body)
		if err != nil {
			return action{}, bodyFault(err)
		}
		return empty(func(c *controller) *fault { return c.putMMDS(n) }), nil
	case second == "config":
		var m MMDSConfig
		if err := decodeBody(r.rel, r.body, setMMDSConfig(&m)); err != nil {
			return action{}, bodyFault(err)
		}
		a := empty(func(c *controller) *fault { return c.putMMDSConfig(m) })
		a.deprecated = m.Version == "V1"
		return a, nil
	}
	return action{}, refuse("Unrecognized PUT request path `" + second + "`.")
}

func routePutSnapshot(r request, second string, hasSecond bool) (action, *fault) {
	switch {
	case second == "create":
		return decoded(r, setSnapshotCreate, (*controller).createSnapshot)
	case second == "load":
		return routeLoad(r)
	case !hasSecond:
		return action{}, refuse("Missing snapshot operation type.")
	}
	return action{}, unknownPath("PUT", "/snapshot/"+second)
}

func routeLoad(r request) (action, *fault) {
	var b loadBody
	if err := decodeBody(r.rel, r.body, setSnapshotLoad(&b)); err != nil {
		return action{}, bodyFault(err)
	}
	switch {
	case b.backend != nil && b.memFile != nil:
		return action{}, bodyFault(badRequest("too many fields: either `mem_backend` or `mem_file_path` exclusively is required"))
	case b.backend != nil:
		b.MemBackend = *b.backend
	case b.memFile != nil:
		b.MemBackend = MemBackend{BackendPath: *b.memFile, BackendType: "File"}
	default:
		return action{}, bodyFault(badRequest("missing field: either `mem_backend` or `mem_file_path` is required"))
	}
	b.TrackDirtyPages = b.TrackDirtyPages || b.enableDiffs
	a := empty(func(c *controller) *fault { return c.loadSnapshot(b.SnapshotLoad) })
	// Before track_dirty_pages the other name was the only one.
	a.deprecated = b.memFile != nil || b.enableDiffs && r.rel.knows("PUT /snapshot/load track_dirty_pages")
	return a, nil
}

func routePatch(r request, first, second string, hasSecond bool) (action, *fault) {
	switch first {
	case "drives":
		return identified(r, second, setDriveUpdate, func(d driveUpdate) string { return d.id }, (*controller).patchDrive)
	case "machine-config":
		var u machineUpdate
		if err := decodeBody(r.rel, r.body, setMachineUpdate(&u)); err != nil {
			return action{}, bodyFault(err)
		}
		if u == (machineUpdate{}) {
			return action{}, refuse("Empty PATCH request.")
		}
		a := empty(func(c *controller) *fault { return c.updateMachine(u) })
		a.deprecated = u.cpuTemplate != nil
		return a, nil
	case "mmds":
		n, err := parseJSON(r.body)
		if err != nil {
			return action{}, bodyFault(err)
		}
		return empty(func(c *controller) *fault { return c.patchMMDS(n) }), nil
	case "network-interfaces":
		return identified(r, second, setNetUpdate, func(n netUpdate) string { return n.id }, (*controller).patchNetworkInterface)
	case "pmem":
		if !r.rel.knows("PATCH /pmem/*") {
			break
		}
		return identified(r, second, setPmemUpdate, func(p pmemUpdate) string { return p.id }, (*controller).patchPmem)
	case "vm":
		return decoded(r, setVMState, (*controller).patchVM)
	case "hotplug":
		if second == "memory" && r.rel.knows("PATCH /hotplug/memory") {
			return decoded(r, setRequestedSize, (*controller).patchMemory)
		}
	}
	return action{}, unknownPath("PATCH", first)
}

func routePatchBalloon(r request, tokens []string) (action, *fault) {
	switch second := token(tokens, 1); {
	case second == "statistics" && r.body != nil:
		return decoded(r, setBalloonInterval, (*controller).patchBalloonInterval)
	case second == "hinting" && r.rel.knows("PATCH /balloon/hinting/start"):
		return routeHinting(r, token(tokens, 2))
	case second != "" && r.body != nil && !r.rel.knows("PATCH /balloon/hinting/start"):
		return action{}, refuse("Unrecognized PATCH request path `" + second + "`.")
	case r.body != nil:
		return decoded(r, setBalloonAmount, (*controller).patchBalloon)
	}
	return action{}, refuse("Empty PATCH request.")
}

func routeHinting(r request, what string) (action, *fault) {
	switch what {
	case "start":
		acknowledge := true
		if len(r.body) > 0 {
			if err := decodeBody(r.rel, r.body, setHinting(&acknowledge)); err != nil {
				return action{}, bodyFault(err)
			}
		}
		return empty(func(c *controller) *fault { return c.startHinting(acknowledge) }), nil
	case "stop":
		return empty((*controller).stopHinting), nil
	}
	return action{}, refuse("Unrecognized PATCH request path `/hinting/" + what + "`.")
}
