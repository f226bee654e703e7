package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	_ "time/tzdata" // a machine may have no time zones
)

func main() { os.Exit(mainCode()) }

// mainCode runs the program and returns its exit code. Tests run it as a command of their scripts.
func mainCode() int {
	// The first interrupt ends the command in an orderly way, the second one at once.
	// A terminal that is closed interrupts as well, unless whoever started the program had it ignore that, as nohup does.
	ends := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		ends = append(ends, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	defer stop()
	go func() {
		<-ctx.Done()
		stop()
	}()
	a := &app{
		args: os.Args[1:], in: os.Stdin, out: os.Stdout, err: os.Stderr, getenv: os.Getenv, environ: os.Environ,
	}
	return a.run(ctx)
}
