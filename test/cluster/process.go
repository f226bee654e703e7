package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
)

// process is one node's process. A node has several in its life.
type process struct {
	cmd  *exec.Cmd
	log  *os.File
	done chan struct{} // closed when it has ended
	mu   sync.Mutex
	err  error // valid after done
}

// start runs a program with its output appended to a file.
func start(logPath string, bin string, args ...string) (*process, error) {
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(bin, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "GOTRACEBACK=all", "NO_COLOR=1")
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", filepath.Base(bin), err), log.Close())
	}
	p := &process{cmd: cmd, log: log, done: make(chan struct{})}
	// Ends with the process, which every test kills in the end.
	go func() {
		err := cmd.Wait()
		p.mu.Lock()
		p.err = errors.Join(err, log.Close())
		p.mu.Unlock()
		close(p.done)
	}()
	return p, nil
}

// signal sends a signal and, unless the process only pauses, waits for its end.
func (p *process) signal(s syscall.Signal) error {
	select {
	case <-p.done:
		return nil
	default:
	}
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	if s == syscall.SIGSTOP || s == syscall.SIGCONT {
		return nil
	}
	<-p.done
	return nil
}

// exit returns how the process ended.
func (p *process) exit() (code int, err error) {
	<-p.done
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd.ProcessState.ExitCode(), p.err
}
