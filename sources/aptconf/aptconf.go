// Package aptconf reads the configuration of this machine's apt, through the
// program apt-config, and tells which proxy apt would use.
package aptconf

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Config is apt's configuration as `apt-config dump` prints it: options in order.
// nil is an empty one.
type Config []Option

// Option is one line: the name of the option ("Acquire::http::Proxy", or one that
// ends in "::" for an element of a list) and its value.
type Option struct{ Name, Value string }

// Host asks apt-config. etc is the directory of the configuration, "" for apt's own
// ("/etc/apt"). A machine without apt gives an empty configuration and an error
// that is exec.ErrNotFound.
func Host(ctx context.Context, etc string) (Config, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "apt-config", "dump")
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	if etc != "" && filepath.Clean(etc) != "/etc/apt" {
		// The only way to be read before the directories are looked at.
		f, err := os.CreateTemp("", "osbuild-star-apt-conf-")
		if err != nil {
			return nil, err
		}
		defer os.Remove(f.Name())
		fmt.Fprintf(f, "Dir::Etc %s;\n", Quote(etc))
		if err := f.Close(); err != nil {
			return nil, err
		}
		cmd.Env = append(cmd.Env, "APT_CONFIG="+f.Name())
	}
	var diag bytes.Buffer
	cmd.Stderr = &diag
	out, err := cmd.Output()
	if err != nil {
		if diag.Len() > 0 {
			return nil, fmt.Errorf("apt-config: %w: %s", err, strings.TrimSpace(diag.String()))
		}
		return nil, fmt.Errorf("apt-config: %w", err)
	}
	return Parse(out), nil
}

// Quote writes a value as apt.conf takes it. The characters that end one (a double
// quote, a line feed) have no escape there and are left out.
func Quote(s string) string {
	return `"` + strings.NewReplacer(`"`, "", "\n", "", "\r", "").Replace(s) + `"`
}

// Parse reads what `apt-config dump` prints. A line that is none of it belongs to a
// value with line feeds and is passed over.
func Parse(dump []byte) Config {
	var c Config
	for line := range strings.Lines(string(dump)) {
		line = strings.TrimSuffix(line, "\n")
		name, value, ok := strings.Cut(line, " ")
		if !ok || name == "" || len(value) < 3 || value[0] != '"' || !strings.HasSuffix(value, `";`) {
			continue
		}
		if name, err := url.PathUnescape(name); err == nil {
			c = append(c, Option{name, value[1 : len(value)-2]})
		}
	}
	return c
}

// Get returns the value of an option, "" if it has none. Names are compared as apt
// does it, without looking at the case.
func (c Config) Get(name string) string {
	var v string
	for _, o := range c {
		if strings.EqualFold(o.Name, name) {
			v = o.Value
		}
	}
	return v
}

// Below returns the options that have a value and whose names begin with one of
// these trees ("Acquire::http").
func (c Config) Below(trees ...string) Config {
	var out Config
	for _, o := range c {
		for _, t := range trees {
			if o.Value != "" && len(o.Name) >= len(t) && strings.EqualFold(o.Name[:len(t)], t) &&
				(len(o.Name) == len(t) || strings.HasPrefix(o.Name[len(t):], "::")) {
				out = append(out, o)
				break
			}
		}
	}
	return out
}

// Proxy returns the proxy that apt would use for a URL: that of its host, what the
// program for automatic detection says, or the general one; for https those of http
// where it has none of its own. ok is false when apt's configuration does not say,
// and the environment decides. A nil URL with ok means a direct connection.
func (c Config) Proxy(ctx context.Context, u *url.URL) (proxy *url.URL, ok bool, err error) {
	if len(c) == 0 {
		return nil, false, nil
	}
	schemes := []string{u.Scheme}
	if u.Scheme == "https" {
		schemes = append(schemes, "http")
	}
	find := func(rest string) string {
		for _, s := range schemes {
			if v := c.Get("Acquire::" + s + "::" + rest); v != "" {
				return v
			}
		}
		return ""
	}
	v := find("Proxy::" + u.Hostname())
	if v == "" {
		v = c.detect(ctx, u)
	}
	if v == "" {
		v = find("Proxy")
	}
	switch {
	case v == "":
		return nil, false, nil
	case strings.EqualFold(v, "DIRECT"), strings.EqualFold(v, "false"):
		return nil, true, nil
	}
	p, err := url.Parse(v)
	if err != nil || p.Host == "" {
		return nil, false, fmt.Errorf("the proxy %q in apt's configuration is not a URL", v)
	}
	return p, true, nil
}

// detect runs the program that finds a proxy, if one is configured. What it cannot
// find is left to the other options, as apt does it.
func (c Config) detect(ctx context.Context, u *url.URL) string {
	prog := c.Get("Acquire::" + u.Scheme + "::Proxy-Auto-Detect")
	if prog == "" {
		prog = c.Get("Acquire::" + u.Scheme + "::ProxyAutoDetect")
	}
	if prog == "" {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, prog, u.String()).Output()
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line)
}
