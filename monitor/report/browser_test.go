// A browser for the tests of the page: Debian's Chromium without a screen, spoken to
// by the protocol that browsers have for that (W3C WebDriver), which is a few calls of
// HTTP.
package report

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

type browser struct {
	t    *testing.T
	base string // URL of the session
}

// newBrowser starts Chromium. The test is skipped where it is not installed.
func newBrowser(t *testing.T) *browser {
	t.Helper()
	driver, err := exec.LookPath("chromedriver")
	if err != nil {
		t.Skip("no chromedriver: apt-get install chromium chromium-driver")
	}
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("no chromium: apt-get install chromium chromium-driver")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	home := t.TempDir()
	cmd := exec.Command(driver, fmt.Sprintf("--port=%d", port), "--allowed-ips=127.0.0.1")
	cmd.Env = append(os.Environ(), "HOME="+home, "TMPDIR="+home)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	b := &browser{t: t, base: fmt.Sprintf("http://127.0.0.1:%d", port)}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if r, err := http.Get(b.base + "/status"); err == nil {
			r.Body.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("chromedriver does not answer: %s", log.String())
		}
	}
	var session struct {
		ID string `json:"sessionId"`
	}
	b.call("POST", "/session", map[string]any{"capabilities": map[string]any{"alwaysMatch": map[string]any{
		"goog:loggingPrefs": map[string]string{"browser": "ALL", "performance": "ALL"},
		"goog:chromeOptions": map[string]any{"binary": chromium, "args": []string{
			"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
			"--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--window-size=1360,1000", "--lang=en",
			"--user-data-dir=" + home + "/profile",
		}},
	}}}, &session)
	b.base += "/session/" + session.ID
	t.Cleanup(func() { b.call("DELETE", "", nil, nil) }) // the browser ends with it
	// It begins with a page of its own, whose traffic is none of a report's.
	b.open("about:blank")
	var drop []logEntry
	for _, kind := range []string{"browser", "performance"} {
		b.call("POST", "/se/log", map[string]any{"type": kind}, &drop)
	}
	return b
}

// call makes one call of the protocol; the answer goes into out.
func (b *browser) call(method, path string, in, out any) {
	b.t.Helper()
	if err := b.try(method, path, in, out); err != nil {
		b.t.Fatal(err)
	}
}

func (b *browser) try(method, path string, in, out any) error {
	var body io.Reader
	if method == "POST" {
		if in == nil {
			in = map[string]any{}
		}
		j, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(j)
	}
	req, err := http.NewRequest(method, b.base+path, body)
	if err != nil {
		return err
	}
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	var answer struct{ Value json.RawMessage }
	if err := json.NewDecoder(r.Body).Decode(&answer); err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if r.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %.2000s", method, path, answer.Value)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(answer.Value, out)
}

func (b *browser) open(url string) {
	b.t.Helper()
	b.call("POST", "/url", map[string]any{"url": url}, nil)
}

// script runs JavaScript in the page, and returns what it returns.
func (b *browser) script(js string, out any) {
	b.t.Helper()
	b.call("POST", "/execute/sync", map[string]any{"script": js, "args": []any{}}, out)
}

// text is what JavaScript evaluates to, as text.
func (b *browser) text(js string) string {
	b.t.Helper()
	var s string
	b.script("return String("+js+")", &s)
	return s
}

// is checks what JavaScript evaluates to.
func (b *browser) is(js, want string) {
	b.t.Helper()
	if got := b.text(js); got != want {
		b.t.Errorf("%s is %q, want %q", js, got, want)
	}
}

func (b *browser) find(css string) string {
	b.t.Helper()
	var e map[string]string
	b.call("POST", "/element", map[string]any{"using": "css selector", "value": css}, &e)
	for _, id := range e {
		return id
	}
	return ""
}

// click clicks where a person would: an element that is covered cannot be clicked.
func (b *browser) click(css string) {
	b.t.Helper()
	id := b.find(css)
	b.script(fmt.Sprintf("document.querySelector(%q).scrollIntoView({block: 'center', behavior: 'instant'})", css), nil)
	b.call("POST", "/element/"+id+"/click", nil, nil)
}

// choose picks an option of a select, by keys.
func (b *browser) choose(css, value string) {
	b.t.Helper()
	var index int
	b.script(fmt.Sprintf("return [...document.querySelector(%q).options].findIndex((o) => o.value === %q)", css, value), &index)
	b.call("POST", "/element/"+b.find(css)+"/value", map[string]any{"text": keyHome + strings.Repeat(keyDown, index)}, nil)
	b.is(fmt.Sprintf("document.querySelector(%q).value", css), value)
}

func (b *browser) write(css, text string) {
	b.t.Helper()
	id := b.find(css)
	b.call("POST", "/element/"+id+"/clear", nil, nil)
	b.call("POST", "/element/"+id+"/value", map[string]any{"text": text}, nil)
}

// Keys of the protocol.
const (
	keyBackspace = "\ue003"
	keyTab       = "\ue004"
	keyEnter     = "\ue007"
	keyEnd       = "\ue010"
	keyHome      = "\ue011"
	keyRight     = "\ue014"
	keyDown      = "\ue015"
)

// press presses keys, whatever has the focus.
func (b *browser) press(keys string) {
	b.t.Helper()
	var actions []map[string]string
	for _, k := range keys {
		actions = append(actions, map[string]string{"type": "keyDown", "value": string(k)}, map[string]string{"type": "keyUp", "value": string(k)})
	}
	b.call("POST", "/actions", map[string]any{"actions": []any{map[string]any{"type": "key", "id": "keyboard", "actions": actions}}}, nil)
}

// devtools calls Chromium's own protocol.
func (b *browser) devtools(cmd string, params any) {
	b.t.Helper()
	b.call("POST", "/goog/cdp/execute", map[string]any{"cmd": cmd, "params": params}, nil)
}

func (b *browser) size(width, height int) {
	b.t.Helper()
	b.devtools("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false})
}

func (b *browser) dark(on bool) {
	b.t.Helper()
	scheme := map[bool]string{true: "dark", false: "light"}[on]
	b.devtools("Emulation.setEmulatedMedia", map[string]any{"features": []any{map[string]string{"name": "prefers-color-scheme", "value": scheme}}})
}

// screenshot is a PNG of what is seen.
func (b *browser) screenshot() []byte {
	b.t.Helper()
	var s string
	b.call("GET", "/screenshot", nil, &s)
	png, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		b.t.Fatal(err)
	}
	return png
}

type logEntry struct {
	Level   string
	Message string
}

// quiet checks that the page said nothing on the console and asked for nothing but
// itself, since the last call.
func (b *browser) quiet(page string) {
	b.t.Helper()
	var console, traffic []logEntry
	b.call("POST", "/se/log", map[string]any{"type": "browser"}, &console)
	for _, e := range console {
		b.t.Errorf("on the console: %s %s", e.Level, e.Message)
	}
	b.call("POST", "/se/log", map[string]any{"type": "performance"}, &traffic)
	loaded := 0
	for _, e := range traffic {
		var m struct {
			Message struct {
				Method string
				Params struct{ Request struct{ URL string } }
			}
		}
		if err := json.Unmarshal([]byte(e.Message), &m); err != nil {
			b.t.Fatal(err)
		}
		if !strings.HasPrefix(m.Message.Method, "Network.") || m.Message.Params.Request.URL == "" {
			continue
		}
		switch url := m.Message.Params.Request.URL; {
		case url == page:
			loaded++
		case strings.HasPrefix(url, "data:"):
		default:
			b.t.Errorf("a request: %s %s", m.Message.Method, url)
		}
	}
	if loaded == 0 {
		b.t.Error("the traffic was not watched: the page itself is not in it")
	}
}
