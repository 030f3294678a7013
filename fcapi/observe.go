package fcapi

import (
	"context"
	"net/http"
)

// LogLevel is the least severe level that is logged.
type LogLevel string

// The levels; Firecracker ignores their case.
const (
	LogOff     LogLevel = "Off"
	LogError   LogLevel = "Error"
	LogWarning LogLevel = "Warning"
	LogInfo    LogLevel = "Info" // the default
	LogDebug   LogLevel = "Debug"
	LogTrace   LogLevel = "Trace"
)

// Logger is the body of PUT /logger.
type Logger struct {
	// LogPath is a file or FIFO, neither truncated nor appended to; empty
	// leaves the log where it goes. Since 1.14 a missing file is created.
	LogPath string `json:"log_path,omitempty"`
	// Level becomes Info again when it is left out.
	Level LogLevel `json:"level,omitempty"`
	// ShowLevel and ShowLogOrigin stay as they are when nil; false at first.
	ShowLevel     *bool `json:"show_level,omitempty"`
	ShowLogOrigin *bool `json:"show_log_origin,omitempty"`
	// Module shows only what comes from it, such as "api_server::request".
	Module string `json:"module,omitempty"`
}

// PutLoggerRequest is PUT /logger.
func PutLoggerRequest(l Logger) Request { return Request{http.MethodPut, "/logger", l} }

// PutLogger sets up the VMM's log. Before the start or load, any number of
// times.
func (c *Client) PutLogger(ctx context.Context, l Logger) error {
	return c.Do(ctx, PutLoggerRequest(l), nil)
}

// Metrics is the body of PUT /metrics. Releases before 1.17 ignore the newer
// fields.
type Metrics struct {
	// MetricsPath is a file or FIFO that gets a line of JSON every minute and
	// at FlushMetrics. Since 1.14 a missing file is created.
	MetricsPath string `json:"metrics_path"`
	// EmitID puts the VMM's --id into each line. Since 1.17.
	EmitID bool `json:"emit_id,omitempty"`
	// Properties are put into each line. Since 1.17.
	Properties map[string]string `json:"properties,omitempty"`
}

// PutMetricsRequest is PUT /metrics.
func PutMetricsRequest(m Metrics) Request { return Request{http.MethodPut, "/metrics", m} }

// PutMetrics says where the metrics go. Before the start or load, once.
func (c *Client) PutMetrics(ctx context.Context, m Metrics) error {
	return c.Do(ctx, PutMetricsRequest(m), nil)
}
