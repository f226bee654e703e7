package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"buf.build/go/protovalidate"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
	"github.com/creto-systems/creto/nhi/spiffe"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
)

type tlsState = tls.ConnectionState

// register builds the servers and registers every service on them.
func (s *Server) register() error {
	validate, err := protovalidate.New()
	if err != nil {
		return fmt.Errorf("prepare request validation: %w", err)
	}
	td := s.identity.genesis.TrustDomain
	known := func(p spiffe.Principal) error {
		if p.TrustDomain != td {
			return fmt.Errorf("%w: trust domain %q", spiffe.ErrNotAuthorized, p.TrustDomain)
		}
		return nil
	}
	s.admit = newAdmission(int64(s.cfg.Limits.RequestBytes))
	s.health = health.NewServer()
	s.health.SetServingStatus(healthService, healthpb.HealthCheckResponse_NOT_SERVING)
	build := func(local bool, creds credentials.TransportCredentials) *grpc.Server {
		w := &wrapper{log: s.log, validate: validate, stopping: s.stopping, admit: s.admit, guard: &guard{
			local: local, source: s.source, applied: s.ledger.AppliedIndex, admin: s.isAdmin, member: s.isTenantMember,
			readToken: s.readToken, current: s.barrier, serving: s.serving.Load,
			voter:   func(id nhi.ID) bool { return s.isMember(id, registry.RoleVoter) },
			sandbox: func(id nhi.ID) bool { return s.isMember(id, registry.RoleSandbox) },
			serves:  s.serves,
			learn: func(id nhi.ID, address string) {
				if err := s.book.learn(id, address); err != nil {
					s.log.Warn("address was not kept", "err", err)
				}
			},
		}}
		opts := []grpc.ServerOption{
			grpc.InitialWindowSize(streamWindow), grpc.InitialConnWindowSize(connWindow),
			grpc.MaxRecvMsgSize(maxMessage), grpc.MaxHeaderListSize(maxHeaderList), grpc.MaxConcurrentStreams(uint32(s.cfg.Limits.Streams)),
			grpc.ConnectionTimeout(10 * time.Second),
			grpc.WaitForHandlers(true), // a handler must not outlive the log it reads: the log is closed after Stop
			grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
			grpc.KeepaliveParams(keepalive.ServerParameters{Time: time.Minute, Timeout: 20 * time.Second, MaxConnectionIdle: idleConnection}),
		}
		if creds != nil {
			opts = append(opts, grpc.Creds(creds))
		}
		g := grpc.NewServer(opts...)
		r := registrar{g, w}
		s.services(r)
		healthpb.RegisterHealthServer(r, s.health)
		reflection.Register(r)
		return g
	}
	s.grpc = build(false, serverCreds{credentials.NewTLS(spiffe.ServerTLS(s.source, known, false))})
	if s.admin != nil {
		s.local = build(true, nil)
	}
	if s.listeners.Read != nil {
		h, err := s.readHandler()
		if err != nil {
			return err
		}
		s.read = s.httpServer(h)
	}
	if s.listeners.Metrics != nil {
		s.metricsS = s.httpServer(s.metricsHandler())
	}
	return nil
}

// services registers the API.
func (s *Server) services(g grpc.ServiceRegistrar) {
	cretov1.RegisterEventServiceServer(g, &eventService{s: s})
	cretov1.RegisterLedgerServiceServer(g, &ledgerService{s: s, exportTime: maxExport})
	cretov1.RegisterIdentityServiceServer(g, &identityService{s: s})
	cretov1.RegisterClusterServiceServer(g, &clusterService{s: s})
	cretov1.RegisterNodeServiceServer(g, &nodeService{s: s})
	s.domains.register(g, s)
}

func (s *Server) httpServer(h http.Handler) *http.Server {
	return &http.Server{
		// What strangers do to a port is no event of the operator's.
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		Handler:  h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: time.Minute, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: maxHeaderList,
	}
}

// serve starts the listeners as tasks.
func (s *Server) serve(task func(string, func(context.Context) error)) {
	limit := func(l net.Listener) net.Listener { return newLimitListener(l, s.cfg.Limits.Connections, false) }
	task("grpc listener", func(context.Context) error {
		return s.stopped(s.grpc.Serve(newLimitListener(s.listeners.GRPC, s.cfg.Limits.Connections, true)))
	})
	if s.local != nil {
		task("admin listener", func(context.Context) error { return s.stopped(s.local.Serve(limit(s.admin))) })
	}
	if s.read != nil {
		l := limit(s.listeners.Read)
		if !s.cfg.PlainRead {
			l = tls.NewListener(l, httpTLS(spiffe.ServerOnlyTLS(s.source)))
		}
		task("read listener", func(context.Context) error { return s.stopped(s.read.Serve(l)) })
	}
	if s.metricsS != nil {
		l := limit(s.listeners.Metrics)
		if !s.cfg.PlainMetrics {
			operators := spiffe.AllowRoles(s.identity.genesis.TrustDomain, spiffe.RoleAdmin, spiffe.RoleNode)
			l = tls.NewListener(l, httpTLS(spiffe.ServerTLS(s.source, operators, true)))
		}
		task("metrics listener", func(context.Context) error { return s.stopped(s.metricsS.Serve(l)) })
	}
}

func httpTLS(c *tls.Config) *tls.Config {
	c.NextProtos = []string{"http/1.1"}
	return c
}

// stopped drops the errors with which servers say that they were stopped.
func (s *Server) stopped(err error) error {
	select {
	case <-s.stopping:
		return nil
	default:
	}
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return err
}

// metricsHandler serves metrics and probes.
func (s *Server) metricsHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.metrics.gatherer, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second}))
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !s.serving.Load() {
			http.Error(w, "no leader that takes writes is known, or the genesis is not applied", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	return mux
}
