package consensus

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
)

// maxLogQueue bounds the records that wait for the sink.
const maxLogQueue = 1024

// LogQueue is a slog.Handler that never blocks: records go into a bounded queue, one goroutine writes them while Run runs, and
// what does not fit is counted and dropped. A sink that hangs (a full pipe) must not stop heartbeats, answers or exits. A node
// whose [Config.Logger] has a LogQueue as its handler writes to that one; its owner calls Run and Flush.
type LogQueue struct {
	sink    slog.Handler
	queue   chan logRecord
	dropped *atomic.Uint64
}

// noContext is the context of the Raft library's records: it has none, and slog asks for one.
type noContext struct{}

func (noContext) Deadline() (t time.Time, ok bool) { return t, false }
func (noContext) Done() <-chan struct{}            { return nil }
func (noContext) Err() error                       { return nil }
func (noContext) Value(any) any                    { return nil }

type logRecord struct {
	sink   slog.Handler
	record slog.Record
}

// NewLogQueue returns a queue before sink.
func NewLogQueue(sink slog.Handler) *LogQueue {
	return &LogQueue{sink: sink, queue: make(chan logRecord, maxLogQueue), dropped: new(atomic.Uint64)}
}

// Enabled is the sink's.
func (q *LogQueue) Enabled(ctx context.Context, level slog.Level) bool {
	return q.sink.Enabled(ctx, level)
}

// Handle queues a record or drops it. It returns nil.
func (q *LogQueue) Handle(_ context.Context, r slog.Record) error {
	select {
	case q.queue <- logRecord{q.sink, r}:
	default:
		q.dropped.Add(1)
	}
	return nil
}

// WithAttrs returns a handler on the same queue.
func (q *LogQueue) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &LogQueue{q.sink.WithAttrs(attrs), q.queue, q.dropped}
}

// WithGroup returns a handler on the same queue.
func (q *LogQueue) WithGroup(name string) slog.Handler {
	return &LogQueue{q.sink.WithGroup(name), q.queue, q.dropped}
}

// Dropped is how many records did not fit.
func (q *LogQueue) Dropped() uint64 { return q.dropped.Load() }

// Run writes records until ctx ends, and returns then unless the sink hangs.
func (q *LogQueue) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case r := <-q.queue:
			// An error of the sink has nowhere to go.
			_ = r.sink.Handle(ctx, r.record)
		}
	}
}

// Flush writes what is queued now, for at most a second: a sink that hangs must not keep anybody from closing.
func (q *LogQueue) Flush() {
	atMost(time.Second, func() {
		for range len(q.queue) {
			select {
			case r := <-q.queue:
				_ = r.sink.Handle(noContext{}, r.record)
			default:
				return
			}
		}
	})
}

// atMost waits for f, but not longer than d; f then goes on alone.
func atMost(d time.Duration, f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}

// hcLogger is the Raft library's logger. Values are rendered in the calling goroutine, since they may be live objects.
type hcLogger struct {
	log  *slog.Logger
	name string
	args []any
}

var _ hclog.Logger = (*hcLogger)(nil)

func newHCLog(l *slog.Logger, name string) hclog.Logger {
	return &hcLogger{log: l.With("part", name), name: name}
}

func discardHCLog() hclog.Logger { return newHCLog(slog.New(slog.DiscardHandler), "") }

func hcLevel(l hclog.Level) slog.Level {
	switch l {
	case hclog.Trace:
		return slog.LevelDebug - 4
	case hclog.Debug:
		return slog.LevelDebug
	case hclog.Warn:
		return slog.LevelWarn
	case hclog.Error:
		return slog.LevelError
	default:
		return slog.LevelInfo
	}
}

func (h *hcLogger) Log(level hclog.Level, msg string, args ...any) {
	var ctx noContext
	lv := hcLevel(level)
	if !h.log.Enabled(ctx, lv) {
		return
	}
	r := slog.NewRecord(time.Now(), lv, msg, 0)
	for i := 0; i+1 < len(args); i += 2 {
		key := fmt.Sprint(args[i])
		switch v := args[i+1].(type) {
		case string, bool, int, int64, uint64, uint32, float64, time.Duration, time.Time:
			r.AddAttrs(slog.Any(key, v))
		case hclog.Format:
			if len(v) > 0 {
				r.AddAttrs(slog.String(key, fmt.Sprintf(fmt.Sprint(v[0]), v[1:]...)))
			}
		default:
			r.AddAttrs(slog.String(key, fmt.Sprint(v)))
		}
	}
	_ = h.log.Handler().Handle(ctx, r)
}

func (h *hcLogger) Trace(msg string, args ...any) { h.Log(hclog.Trace, msg, args...) }
func (h *hcLogger) Debug(msg string, args ...any) { h.Log(hclog.Debug, msg, args...) }
func (h *hcLogger) Info(msg string, args ...any)  { h.Log(hclog.Info, msg, args...) }
func (h *hcLogger) Warn(msg string, args ...any)  { h.Log(hclog.Warn, msg, args...) }
func (h *hcLogger) Error(msg string, args ...any) { h.Log(hclog.Error, msg, args...) }

func (h *hcLogger) enabled(l hclog.Level) bool {
	return h.log.Enabled(noContext{}, hcLevel(l))
}
func (h *hcLogger) IsTrace() bool { return h.enabled(hclog.Trace) }
func (h *hcLogger) IsDebug() bool { return h.enabled(hclog.Debug) }
func (h *hcLogger) IsInfo() bool  { return h.enabled(hclog.Info) }
func (h *hcLogger) IsWarn() bool  { return h.enabled(hclog.Warn) }
func (h *hcLogger) IsError() bool { return h.enabled(hclog.Error) }

func (h *hcLogger) ImpliedArgs() []any { return h.args }

func (h *hcLogger) With(args ...any) hclog.Logger {
	rendered := make([]any, 0, len(args))
	for i := 0; i+1 < len(args); i += 2 {
		rendered = append(rendered, fmt.Sprint(args[i]), fmt.Sprint(args[i+1]))
	}
	return &hcLogger{h.log.With(rendered...), h.name, append(h.args[:len(h.args):len(h.args)], args...)}
}

func (h *hcLogger) Name() string { return h.name }

func (h *hcLogger) Named(name string) hclog.Logger {
	return &hcLogger{h.log, h.name + "." + name, h.args}
}
func (h *hcLogger) ResetNamed(name string) hclog.Logger { return &hcLogger{h.log, name, h.args} }

// SetLevel does nothing: the handler's level rules.
func (h *hcLogger) SetLevel(hclog.Level) {}

func (h *hcLogger) GetLevel() hclog.Level {
	for _, l := range []hclog.Level{hclog.Trace, hclog.Debug, hclog.Info, hclog.Warn} {
		if h.enabled(l) {
			return l
		}
	}
	return hclog.Error
}

func (h *hcLogger) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return slog.NewLogLogger(h.log.Handler(), slog.LevelInfo)
}

func (h *hcLogger) StandardWriter(opts *hclog.StandardLoggerOptions) io.Writer {
	return h.StandardLogger(opts).Writer()
}
