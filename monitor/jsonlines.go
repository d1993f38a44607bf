// The reader for programs: JSON lines.
package monitor

import (
	"encoding/json"
	"io"
	"sync"
)

// JSONLines writes each event as one line of JSON.
type JSONLines struct {
	W  io.Writer
	mu sync.Mutex
}

// Event writes the event.
func (j *JSONLines) Event(e Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	b, err := json.Marshal(e)
	if err != nil {
		return
	}
	j.W.Write(append(b, '\n'))
}
