package fcapi

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

// encode is what Client.Do sends.
func (r Request) encode() ([]byte, error) {
	body, err := r.body()
	if err != nil {
		return nil, err
	}
	return r.message(body), nil
}

func TestRequestThatWouldBeMisunderstoodIsNotSent(t *testing.T) {
	t.Parallel()
	get := func(path string) Request { return Request{Method: "GET", Path: path} }
	tests := map[string]struct {
		r    Request
		says string
	}{
		"method of another API":      {Request{Method: "POST", Path: "/vm", Body: VM{}}, `"POST"`},
		"method in small letters":    {Request{Method: "get", Path: "/"}, `"get"`},
		"GET with a body":            {Request{Method: "GET", Path: "/", Body: VM{}}, "has a body"},
		"DELETE with a body":         {Request{Method: "DELETE", Path: "/drives/a", Body: VM{}}, "has a body"},
		"no path":                    {get(""), `""`},
		"relative path":              {get("version"), `"version"`},
		"query":                      {get("/version?x=1"), "version?x=1"},
		"space":                      {get("/version HTTP/1.1"), "/version HTTP/1.1"},
		"line end":                   {get("/version\r\nX: y"), `\r\n`},
		"empty segment":              {get("//version"), `""`},
		"slash at the end":           {get("/version/"), `""`},
		"long path":                  {get("/" + strings.Repeat("a", maxPath)), "1001 bytes"},
		"no id":                      {PutDriveRequest(Drive{}), `id ""`},
		"id with a dash":             {PutDriveRequest(Drive{DriveID: "my-disk"}), `id "my-disk"`},
		"id with a slash":            {DeleteDriveRequest("a/b"), `id "a/b"`},
		"id that is a path":          {DeletePmemRequest("../../vm"), `id "../../vm"`},
		"id with a line end":         {DeleteNetworkInterfaceRequest("a\r\nX: y"), `id "a\r\nX: y"`},
		"id with a percent sign":     {DeleteDriveRequest("%61"), `id "%61"`},
		"id outside ASCII":           {DeleteDriveRequest("ä"), `id "ä"`},
		"id that is missing":         {Request{Method: "DELETE", Path: "/drives"}, `id ""`},
		"segments behind the id":     {Request{Method: "DELETE", Path: "/drives/a/b"}, `id "a/b"`},
		"path that is not UTF-8":     {PutDriveRequest(Drive{DriveID: "d", PathOnHost: "disk\xff"}), "not valid UTF-8"},
		"body that is not JSON-able": {Request{Method: "PUT", Path: "/mmds", Body: func() {}}, "encode body"},
		"broken raw body":            {PutMMDSRequest(json.RawMessage("{")), "encode body"},
	}
	f := newFake(t, always(noContent))
	c := newClient(t, f)
	for name, tt := range tests {
		err := c.Do(t.Context(), tt.r, nil)
		if !errors.Is(err, ErrInvalidRequest) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want ErrInvalidRequest that says %s", name, err, tt.says)
		}
	}
	if n := f.conns.Load(); n != 0 {
		t.Errorf("%d connections, want none", n)
	}
}

func TestTextsThatLookReplacedButAreNotAreSent(t *testing.T) {
	t.Parallel()
	for name, r := range map[string]Request{
		"the replacement character itself": PutBootSourceRequest(BootSource{KernelImagePath: "k\uFFFD"}),
		"its escape spelled out":           PutBootSourceRequest(BootSource{KernelImagePath: `k\ufffd`}),
		"two backslashes before":           PutBootSourceRequest(BootSource{KernelImagePath: `k\\ufffd`}),
		"metadata":                         PutMMDSRequest(json.RawMessage(`"\ufffd"`)),
		"HTML":                             PutBootSourceRequest(BootSource{KernelImagePath: "<&>"}),
	} {
		if _, err := r.encode(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := PutBootSourceRequest(BootSource{KernelImagePath: "k\\\xff"}).encode(); !errors.Is(err, ErrInvalidRequest) {
		t.Errorf("a backslash before a wrong byte hides it: %v", err)
	}
}

func TestStringNamesTheCall(t *testing.T) {
	t.Parallel()
	if got := PutDriveRequest(Drive{DriveID: "a"}).String(); got != "PUT /drives/a" {
		t.Error(got)
	}
}
