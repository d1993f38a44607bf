// A client of QMP, the monitor of QEMU, over a connected socket.

package vm

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"sync"
	"time"
)

// errMonitorGone is returned by commands when QEMU has closed the monitor.
var errMonitorGone = errors.New("QEMU closed its monitor")

// monitorTimeout bounds one command: QEMU answers at once unless it hangs.
const monitorTimeout = 30 * time.Second

// qmp is the connection. Commands may be sent by any goroutine.
type qmp struct {
	conn    net.Conn
	onEvent func(name string, data json.RawMessage)

	mu      sync.Mutex
	next    uint64
	pending map[uint64]chan qmpReply
	gone    bool
	done    chan struct{} // closed when the reader has ended
}

type qmpReply struct {
	Return json.RawMessage
	Error  *qmpError
}

type qmpError struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

func (e *qmpError) Error() string { return e.Desc }

type qmpMessage struct {
	QMP    json.RawMessage `json:"QMP"`
	Event  string          `json:"event"`
	Data   json.RawMessage `json:"data"`
	Return json.RawMessage `json:"return"`
	Error  *qmpError       `json:"error"`
	ID     uint64          `json:"id"`
}

// newQMP takes the connection over, and waits until QEMU takes commands, but for
// its greeting no longer than patience.
func newQMP(ctx context.Context, conn net.Conn, patience time.Duration, onEvent func(string, json.RawMessage)) (*qmp, error) {
	q := &qmp{conn: conn, onEvent: onEvent, pending: map[uint64]chan qmpReply{}, done: make(chan struct{})}
	greeted := make(chan struct{})
	go q.read(greeted)
	t := time.NewTimer(patience)
	defer t.Stop()
	var err error
	select {
	case <-greeted:
		err = q.command(ctx, "qmp_capabilities", nil, nil)
	case <-q.done:
		err = errMonitorGone
	case <-ctx.Done():
		err = ctx.Err()
	case <-t.C:
		err = errors.New("QEMU's monitor does not answer")
	}
	if err != nil {
		q.close()
		return nil, err
	}
	return q, nil
}

// close closes the connection and waits for the reader.
func (q *qmp) close() {
	q.conn.Close()
	<-q.done
}

func (q *qmp) read(greeted chan<- struct{}) {
	defer close(q.done)
	r := bufio.NewReader(q.conn)
	dec := json.NewDecoder(io.LimitReader(r, 1<<30))
	for {
		var m qmpMessage
		if err := dec.Decode(&m); err != nil {
			break
		}
		switch {
		case m.QMP != nil:
			if greeted != nil {
				close(greeted)
				greeted = nil
			}
		case m.Event != "":
			if q.onEvent != nil {
				q.onEvent(m.Event, m.Data)
			}
		case m.Return != nil || m.Error != nil:
			q.mu.Lock()
			ch := q.pending[m.ID]
			delete(q.pending, m.ID)
			q.mu.Unlock()
			if ch != nil {
				ch <- qmpReply{m.Return, m.Error}
			}
		}
	}
	q.mu.Lock()
	q.gone = true
	for _, ch := range q.pending {
		close(ch)
	}
	q.pending = nil
	q.mu.Unlock()
}

// command runs one command; result may be nil.
func (q *qmp) command(ctx context.Context, name string, args, result any) error {
	ch := make(chan qmpReply, 1)
	q.mu.Lock()
	if q.gone {
		q.mu.Unlock()
		return errMonitorGone
	}
	q.next++
	id := q.next
	q.pending[id] = ch
	msg := map[string]any{"execute": name, "id": id}
	if args != nil {
		msg["arguments"] = args
	}
	data, err := json.Marshal(msg)
	if err == nil {
		q.conn.SetWriteDeadline(time.Now().Add(monitorTimeout))
		_, err = q.conn.Write(append(data, '\n'))
	}
	if err != nil {
		delete(q.pending, id)
		q.mu.Unlock()
		return fmt.Errorf("QEMU's monitor: %s: %w", name, err)
	}
	q.mu.Unlock()
	t := time.NewTimer(monitorTimeout)
	defer t.Stop()
	select {
	case r, ok := <-ch:
		switch {
		case !ok:
			return errMonitorGone
		case r.Error != nil:
			return fmt.Errorf("QEMU's monitor: %s: %w", name, r.Error)
		case result != nil:
			if err := json.Unmarshal(r.Return, result); err != nil {
				return fmt.Errorf("QEMU's monitor: %s: %w", name, err)
			}
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return fmt.Errorf("QEMU's monitor: %s: no answer", name)
	}
}

// forwardRE finds a forwarded port in what "info usernet" prints:
// protocol, descriptor, host address and port, guest address and port.
var forwardRE = regexp.MustCompile(`TCP\[HOST_FORWARD\]\s+\d+\s+\S+\s+(\d+)\s+\S+\s+22\s`)

// sshPort asks which port of the host leads to port 22 of the guest. There is no
// QMP command for it, only the human monitor's.
func (q *qmp) sshPort(ctx context.Context) (int, error) {
	var text string
	err := q.command(ctx, "human-monitor-command", map[string]string{"command-line": "info usernet"}, &text)
	if err != nil {
		return 0, err
	}
	m := forwardRE.FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("QEMU forwards no port to the guest's ssh: %q", text)
	}
	return strconv.Atoi(m[1])
}
