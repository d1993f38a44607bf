// org.osbuild.users: accounts.
package stages

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

func init() {
	Register(&Stage{
		Name:     "org.osbuild.users",
		Revision: 1,
		Summary:  "make and change user accounts",
		Doc: `Makes each user by useradd of the build root or, where the image has the user already,
changes the account by usermod; what is not given stays. The uid of a user who is
there cannot be changed.

A new user gets the home directory that is given; "" is one that is not made. If a
user who was there has none, mkhomedir_helper of the image makes it.

The password is a hash as crypt(3) makes it ("openssl passwd -6"), or "!" and the
like to lock it. SSH keys are added to ~/.ssh/authorized_keys.

    {"users": {
      "root": {"password": "!locked"},
      "alice": {"uid": 1500, "groups": ["sudo"], "home": "/home/alice", "shell": "/bin/bash",
                "password": "$6$salt$…", "keys": ["ssh-ed25519 AAAA… alice@example.org"]}
    }}`,
		Schema: `{
  "options": {
    "type": "object",
    "additionalProperties": false,
    "properties": {
      "users": {
        "type": "object",
        "additionalProperties": false,
        "description": "name of the user → facts about the account",
        "patternProperties": {
          "^[A-Za-z0-9_.][A-Za-z0-9_.-]{0,255}$": {
            "type": "object",
            "properties": {
              "uid": {"type": "number", "description": "number of the user"},
              "gid": {"type": "number", "description": "number of the primary group, which must exist"},
              "groups": {"type": "array", "items": {"type": "string"}, "description": "names of all other groups of the user"},
              "description": {"type": "string", "description": "full name, or what the account is for"},
              "home": {"type": "string", "description": "home directory; \"\" makes none"},
              "shell": {"type": "string", "description": "login shell"},
              "password": {"type": "string", "description": "hash of the password"},
              "key": {"type": "string", "description": "public SSH key, added after those of keys"},
              "keys": {"type": "array", "items": {"type": "string"}, "description": "public SSH keys"},
              "expiredate": {"type": "integer", "description": "day on which the account ends, counted from 1970-01-01"},
              "force_password_reset": {"type": "boolean", "description": "the user must set a new password at the next login"}
            }
          }
        }
      }
    }
  },
  "devices": {"type": "object", "additionalProperties": true}
}`,
		Tools: []string{"useradd", "usermod"},
		ToolsFor: func(options map[string]any) []string {
			users, _ := options["users"].(map[string]any)
			for _, u := range users {
				if u, _ := u.(map[string]any); u["force_password_reset"] == true {
					return []string{"passwd"}
				}
			}
			return nil
		},
		Chroot: true,
		Run:    runUsers,
	})
}

type usersOptions struct {
	Users orderedMap[userEntry] `json:"users"`
}

type userEntry struct {
	UID           json.Number `json:"uid"`
	GID           json.Number `json:"gid"`
	Groups        []string    `json:"groups"`
	Description   *string     `json:"description"`
	Home          *string     `json:"home"`
	Shell         string      `json:"shell"`
	Password      *string     `json:"password"`
	Key           string      `json:"key"`
	Keys          []string    `json:"keys"`
	ExpireDate    json.Number `json:"expiredate"`
	PasswordReset bool        `json:"force_password_reset"`
}

func runUsers(c *Context) error {
	var o usersOptions
	if err := c.Decode(&o); err != nil {
		return err
	}
	for _, u := range o.Users {
		if err := setUser(c, u.Name, &u.Value); err != nil {
			return fmt.Errorf("user %s: %w", u.Name, err)
		}
	}
	return nil
}

func setUser(c *Context, name string, u *userEntry) error {
	old, err := findAccount(c, passwdFile, name)
	if err != nil {
		return err
	}
	if old == nil {
		err = addUser(c, name, u)
	} else {
		err = changeUser(c, name, u, old)
	}
	if err != nil {
		return err
	}
	if u.PasswordReset {
		if err := c.Run("passwd", "--root", c.Tree, "--expire", name); err != nil {
			return err
		}
	}
	keys := u.Keys
	if u.Key != "" {
		keys = append(keys, u.Key)
	}
	if len(keys) == 0 {
		return nil
	}
	return addKeys(c, name, keys)
}

const passwdFile = "/etc/passwd"

func addUser(c *Context, name string, u *userEntry) error {
	at, err := c.Resolve(passwdFile)
	if err != nil {
		return err
	}
	if _, err := os.Stat(at); errors.Is(err, os.ErrNotExist) {
		return &Error{
			Msg:  "the tree has no " + passwdFile,
			Hint: "install the base system before this stage",
		}
	}
	var args []string
	if u.UID != "" {
		args = append(args, "--uid", u.UID.String(), "-o")
	}
	args = append(args, u.arguments()...)
	switch {
	case u.Home == nil:
	case *u.Home == "":
		args = append(args, "--no-create-home")
	default:
		args = append(args, "--home-dir", *u.Home, "--create-home")
	}
	return runAccountTool(c, "useradd", name, args)
}

func changeUser(c *Context, name string, u *userEntry, old account) error {
	if u.UID != "" && (len(old) < 3 || old[2] != u.UID.String()) {
		return &Error{
			Msg:  "the user exists with another uid than " + u.UID.String(),
			Hint: "leave uid out, or set it to that of the image",
		}
	}
	args := u.arguments()
	if u.Home != nil && *u.Home != "" {
		args = append(args, "--home", *u.Home)
	}
	if len(args) > 0 {
		if err := runAccountTool(c, "usermod", name, args); err != nil {
			return err
		}
	}
	e, _, _, err := homeOf(c, name)
	if err != nil || e == "" {
		return err
	}
	at, err := c.Resolve(e)
	if err != nil {
		return err
	}
	if _, err := os.Stat(at); err == nil {
		return nil
	}
	for _, dir := range []string{"/proc", "/dev", "/sys"} {
		at, err := c.Resolve(dir)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(at, 0o755); err != nil {
			return err
		}
	}
	return c.Chroot("mkhomedir_helper", name)
}

// arguments are those that useradd and usermod have in common.
func (u *userEntry) arguments() []string {
	var args []string
	if u.GID != "" {
		args = append(args, "--gid", u.GID.String())
	}
	if len(u.Groups) > 0 {
		args = append(args, "--groups", strings.Join(u.Groups, ","))
	}
	if u.Description != nil {
		args = append(args, "--comment", *u.Description)
	}
	if u.Shell != "" {
		args = append(args, "--shell", u.Shell)
	}
	if u.Password != nil {
		args = append(args, "--password", *u.Password)
	}
	if u.ExpireDate != "" {
		args = append(args, "--expiredate", u.ExpireDate.String())
	}
	return args
}

// runAccountTool runs useradd or usermod; the error does not show the password.
func runAccountTool(c *Context, tool, name string, args []string) error {
	args = append(append([]string{"--root", c.Tree}, args...), "--", name)
	return c.waitAs(c.Cmd(tool, args...), tool+" "+name)
}

// homeOf returns the home directory of a user of the tree, as the tree has it, and
// whose it is.
func homeOf(c *Context, name string) (home string, uid, gid int, err error) {
	e, err := findAccount(c, passwdFile, name)
	if err != nil {
		return "", 0, 0, err
	}
	if len(e) != 7 {
		return "", 0, 0, Errorf("%s has no whole line for %s", passwdFile, name)
	}
	if uid, err = e.id(); err == nil {
		gid, err = strconv.Atoi(e[3])
	}
	return e[5], uid, gid, err
}

// addKeys adds lines to the authorized_keys of a user.
func addKeys(c *Context, name string, keys []string) error {
	home, uid, gid, err := homeOf(c, name)
	if err != nil {
		return err
	}
	dir, err := c.Resolve(path.Join(home, ".ssh"))
	if err != nil {
		return err
	}
	if _, err := os.Stat(dir); err != nil {
		if _, err := os.Stat(filepath.Dir(dir)); err != nil {
			return &Error{
				Msg:  fmt.Sprintf("no place for the SSH keys: the home directory %q is not there", home),
				Hint: "set \"home\", so that it is made",
			}
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		if err := os.Lchown(dir, uid, gid); err != nil {
			return err
		}
	}
	at, err := c.Resolve(path.Join(home, ".ssh/authorized_keys"))
	if err != nil {
		return err
	}
	f, err := os.OpenFile(at, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(strings.Join(keys, "\n") + "\n")
	if err == nil {
		err = f.Chown(uid, gid)
	}
	if err == nil {
		err = f.Chmod(0o600)
	}
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}
