package fcapi

import (
	"context"
	"net/http"
)

// InstanceState is what a microVM does, as GET / tells it.
type InstanceState string

// The states of a microVM. A guest that has powered off or halted stays
// Running.
const (
	StateNotStarted InstanceState = "Not started"
	StateRunning    InstanceState = "Running"
	StatePaused     InstanceState = "Paused"
)

// InstanceInfo is the answer to GET /.
type InstanceInfo struct {
	// ID is the --id of the process, "anonymous-instance" without one.
	ID    string        `json:"id"`
	State InstanceState `json:"state"`
	// VMMVersion is the release, such as "1.16.1".
	VMMVersion string `json:"vmm_version"`
	// AppName is "Firecracker".
	AppName string `json:"app_name"`
}

// DescribeRequest is GET /, whose answer is an InstanceInfo.
func DescribeRequest() Request { return Request{Method: http.MethodGet, Path: "/"} }

// Describe returns id, state and version of the VMM.
func (c *Client) Describe(ctx context.Context) (InstanceInfo, error) {
	return get[InstanceInfo](ctx, c, "/")
}

// Version returns the release of Firecracker that answers, such as "1.16.1".
func (c *Client) Version(ctx context.Context) (string, error) {
	v, err := get[struct {
		FirecrackerVersion string `json:"firecracker_version"`
	}](ctx, c, "/version")
	return v.FirecrackerVersion, err
}

// ActionType names an action of PUT /actions.
type ActionType string

// The actions.
const (
	// ActionInstanceStart boots the configured microVM.
	ActionInstanceStart ActionType = "InstanceStart"
	// ActionSendCtrlAltDel presses the keys, upon which Linux reboots; with
	// reboot=k in its arguments that ends the VMM. x86_64 only; after the start.
	ActionSendCtrlAltDel ActionType = "SendCtrlAltDel"
	// ActionFlushMetrics writes a line of metrics now. After the start.
	ActionFlushMetrics ActionType = "FlushMetrics"
)

// InstanceAction is the body of PUT /actions.
type InstanceAction struct {
	ActionType ActionType `json:"action_type"`
}

// ActionRequest is PUT /actions.
func ActionRequest(a ActionType) Request {
	return Request{http.MethodPut, "/actions", InstanceAction{a}}
}

// Action does a.
func (c *Client) Action(ctx context.Context, a ActionType) error {
	return c.Do(ctx, ActionRequest(a), nil)
}

// StartInstanceRequest is PUT /actions InstanceStart.
func StartInstanceRequest() Request { return ActionRequest(ActionInstanceStart) }

// StartInstance boots the configured microVM. After a refusal the VMM lives
// on, not started, and can be configured again.
func (c *Client) StartInstance(ctx context.Context) error {
	return c.Do(ctx, StartInstanceRequest(), nil)
}

// SendCtrlAltDelRequest is PUT /actions SendCtrlAltDel.
func SendCtrlAltDelRequest() Request { return ActionRequest(ActionSendCtrlAltDel) }

// SendCtrlAltDel asks the guest to reboot. x86_64 only.
func (c *Client) SendCtrlAltDel(ctx context.Context) error {
	return c.Do(ctx, SendCtrlAltDelRequest(), nil)
}

// FlushMetricsRequest is PUT /actions FlushMetrics.
func FlushMetricsRequest() Request { return ActionRequest(ActionFlushMetrics) }

// FlushMetrics writes a line of metrics now.
func (c *Client) FlushMetrics(ctx context.Context) error {
	return c.Do(ctx, FlushMetricsRequest(), nil)
}

// VMState is a state that PATCH /vm can bring about.
type VMState string

// The states that a started microVM can be put in.
const (
	VMPaused  VMState = "Paused"
	VMResumed VMState = "Resumed"
)

// VM is the body of PATCH /vm.
type VM struct {
	State VMState `json:"state"`
}

// PatchVMRequest is PATCH /vm.
func PatchVMRequest(v VM) Request { return Request{http.MethodPatch, "/vm", v} }

// PatchVM pauses or resumes the microVM. Both are idempotent.
func (c *Client) PatchVM(ctx context.Context, v VM) error {
	return c.Do(ctx, PatchVMRequest(v), nil)
}

// PauseRequest is PATCH /vm Paused.
func PauseRequest() Request { return PatchVMRequest(VM{VMPaused}) }

// Pause stops the vCPUs.
func (c *Client) Pause(ctx context.Context) error { return c.Do(ctx, PauseRequest(), nil) }

// ResumeRequest is PATCH /vm Resumed.
func ResumeRequest() Request { return PatchVMRequest(VM{VMResumed}) }

// Resume lets the vCPUs run on.
func (c *Client) Resume(ctx context.Context) error { return c.Do(ctx, ResumeRequest(), nil) }

func get[T any](ctx context.Context, c *Client, path string) (T, error) {
	var v T
	err := c.Do(ctx, Request{Method: http.MethodGet, Path: path}, &v)
	if err != nil {
		var zero T // not what a broken answer began to fill
		return zero, err
	}
	return v, nil
}
