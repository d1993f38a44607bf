// The store's socket, request by request, in upstream's shapes.
package hostapi

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	var calls []string
	s, err := ServeStore(StoreConfig{
		Path: path,
		ReadTree: func(_ context.Context, id string) (string, error) {
			if id != "abc" {
				return "", ErrNoTree
			}
			return "/objects/" + id, nil
		},
		ReadTreeAt: func(_ context.Context, id, target, subtree string) (func() error, error) {
			switch id {
			case "bad":
				return nil, &os.PathError{Op: "mount", Path: target, Err: unix.EBUSY}
			case "none":
				return nil, ErrNoTree
			}
			calls = append(calls, "mount "+id+subtree+" "+target)
			return func() error { calls = append(calls, "unmount "+target); return nil }, nil
		},
		Mkdtemp: func(_ context.Context, prefix, suffix string) (string, error) {
			return "/tmp/" + prefix + "X" + suffix, nil
		},
		Source: func(_ context.Context, name string) (string, error) {
			if name == "bad" {
				return "", errors.New("no such sources")
			}
			return "/store/sources/" + name, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, path)
	for _, r := range []struct{ request, want string }{
		{`{"method": "read-tree", "object-id": "abc"}`, `{"path":"/objects/abc"}`},
		{`{"method": "read-tree", "object-id": "xyz"}`, `{"path":null}`},
		{`{"method": "read-tree-at", "object-id": "abc", "target": "/inputs/t", "subtree": "/"}`, `{"path":"/inputs/t"}`},
		{`{"method": "read-tree-at", "object-id": "abc", "target": "/inputs/u", "subtree": "/usr"}`, `{"path":"/inputs/u"}`},
		{`{"method": "read-tree-at", "object-id": "none", "target": "/inputs/v", "subtree": "/"}`, `{"path":null}`},
		{`{"method": "read-tree-at", "object-id": "bad", "target": "/inputs/v", "subtree": "/"}`, `{"error":"mount /inputs/v: device or resource busy"}`},
		{`{"method": "mkdtemp", "suffix": null, "prefix": null}`, `{"path":"/tmp/X"}`},
		{`{"method": "mkdtemp", "suffix": "-s", "prefix": "p-"}`, `{"path":"/tmp/p-X-s"}`},
		{`{"method": "source", "name": "org.osbuild.files"}`, `{"path":"/store/sources/org.osbuild.files"}`},
		{`{"method": "source", "name": "bad"}`, `{"exception":{"type":"RuntimeError","value":"no such sources","traceback":""},"method":"exception"}`},
		{`{"method": "source"}`, `{"exception":{"type":"KeyError","value":"'name'","traceback":""},"method":"exception"}`},
		{`{"method": "destroy"}`, `{"exception":{"type":"ValueError","value":"there is no method destroy","traceback":""},"method":"exception"}`},
		{`{}`, `{"exception":{"type":"KeyError","value":"'method'","traceback":""},"method":"exception"}`},
	} {
		if err := c.Send(json.RawMessage(r.request)); err != nil {
			t.Fatal(err)
		}
		var got json.RawMessage
		if _, err := c.Receive(&got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(r.want, string(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", r.request, diff)
		}
	}
	if err := s.Close(context.Background()); err != nil {
		t.Error(err)
	}
	want := []string{"mount abc/ /inputs/t", "mount abc/usr /inputs/u", "unmount /inputs/u", "unmount /inputs/t"}
	if diff := cmp.Diff(want, calls); diff != "" {
		t.Errorf("mounts (-want +got):\n%s", diff)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("the socket is left")
	}
}
