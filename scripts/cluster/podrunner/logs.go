package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// stampedLog is what a container says, each line behind the time it was complete.
type stampedLog struct {
	mu   sync.Mutex
	out  io.WriteCloser
	now  func() time.Time
	line []byte // the last one, not yet complete
}

// newLog begins a log; the one there was becomes the previous one.
func newLog(path, previous string) (*stampedLog, error) {
	if err := os.Rename(path, previous); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	file, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	return &stampedLog{out: file, now: time.Now}, nil
}

func (l *stampedLog) Write(text []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.line = append(l.line, text...)
	for {
		line, rest, complete := bytes.Cut(l.line, []byte{'\n'})
		if !complete {
			return len(text), nil
		}
		if err := l.put(line); err != nil {
			return 0, err
		}
		l.line = rest
	}
}

func (l *stampedLog) put(line []byte) error {
	_, err := fmt.Fprintf(l.out, "%s %s\n", l.now().UTC().Format(time.RFC3339Nano), line)
	return err
}

// Close completes the last line.
func (l *stampedLog) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.line) > 0 {
		_ = l.put(l.line)
	}
	return l.out.Close()
}

// logQuery is which lines of a log are wanted, and how.
type logQuery struct {
	since      time.Time
	tail       int // -1: all
	limit      int64
	timestamps bool
	previous   bool
	follow     bool
}

func parseLogQuery(values url.Values, now time.Time) (logQuery, error) {
	q := logQuery{tail: -1, limit: -1}
	q.timestamps = values.Get("timestamps") == "true"
	q.previous = values.Get("previous") == "true"
	q.follow = values.Get("follow") == "true"
	if text := values.Get("sinceTime"); text != "" {
		since, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return q, fmt.Errorf("sinceTime: %w", err)
		}
		q.since = since
	}
	for name, set := range map[string]func(int64){
		"sinceSeconds": func(n int64) { q.since = now.Add(-time.Duration(n) * time.Second) },
		"tailLines":    func(n int64) { q.tail = int(n) },
		"limitBytes":   func(n int64) { q.limit = n },
	} {
		text := values.Get(name)
		if text == "" {
			continue
		}
		number, err := strconv.ParseInt(text, 10, 63)
		if err != nil || number < 0 {
			return q, fmt.Errorf("%s=%s: a number from 0 on is wanted", name, text)
		}
		set(number)
	}
	return q, nil
}

// pick is a line as it is wanted; false if it is not.
func (q *logQuery) pick(line string) (string, bool) {
	stamp, text, _ := strings.Cut(line, " ")
	if at, err := time.Parse(time.RFC3339Nano, stamp); err != nil || at.Before(q.since) {
		return "", false
	}
	if q.timestamps {
		return line, true
	}
	return text, true
}

// copyLog writes the lines that are wanted; with follow also those to come, until the context ends.
func copyLog(ctx context.Context, to io.Writer, from io.Reader, q logQuery) error {
	reader := bufio.NewReader(from)
	lines, part, err := completeLines(reader, "")
	if err != nil {
		return err
	}
	var wanted []string
	for _, line := range lines {
		if text, ok := q.pick(line); ok {
			wanted = append(wanted, text)
		}
	}
	if q.tail >= 0 && len(wanted) > q.tail {
		wanted = wanted[len(wanted)-q.tail:]
	}
	left := q.limit
	for {
		for _, text := range wanted {
			if left == 0 {
				return nil
			}
			text += "\n"
			if left > 0 {
				text = text[:min(int64(len(text)), left)]
				left -= int64(len(text))
			}
			if _, err := io.WriteString(to, text); err != nil {
				return err
			}
		}
		if !q.follow || ctx.Err() != nil {
			return nil
		}
		pause(ctx, 200*time.Millisecond)
		if lines, part, err = completeLines(reader, part); err != nil {
			return err
		}
		wanted = wanted[:0]
		for _, line := range lines {
			if text, ok := q.pick(line); ok {
				wanted = append(wanted, text)
			}
		}
	}
}

// completeLines reads to the end as it is now; part is a line whose end has not been written yet.
func completeLines(from *bufio.Reader, part string) (lines []string, rest string, err error) {
	for {
		text, err := from.ReadString('\n')
		part += text
		if errors.Is(err, io.EOF) {
			return lines, part, nil
		}
		if err != nil {
			return lines, part, err
		}
		lines = append(lines, strings.TrimSuffix(part, "\n"))
		part = ""
	}
}
