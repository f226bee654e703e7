package node

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/creto-systems/creto/nhi/registry"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
)

// notReads are the methods that answer with something else than the state of a log.
var notReads = map[string]bool{
	cretov1.EventService_Submit_FullMethodName:               true,
	cretov1.ClusterService_Join_FullMethodName:               true,
	cretov1.ClusterService_Renew_FullMethodName:              true,
	cretov1.ClusterService_ChangeMember_FullMethodName:       true,
	cretov1.ClusterService_TransferLeadership_FullMethodName: true,
	cretov1.ClusterService_SetClock_FullMethodName:           true,
	cretov1.SandboxService_Connect_FullMethodName:            true,
	cretov1.NodeService_Forward_FullMethodName:               true,
	cretov1.NodeService_ReadIndex_FullMethodName:             true,
	cretov1.NodeService_Cosign_FullMethodName:                true,
}

// needsMore are reads of things that this test's cluster has none of; the tests named hold their answers against the same rule.
var needsMore = map[string]string{
	cretov1.MeterService_GetLease_FullMethodName:          "TestApproval",
	cretov1.OversightService_GetApproval_FullMethodName:   "TestApproval",
	cretov1.OversightService_AwaitApproval_FullMethodName: "TestApproval",
	cretov1.SandboxService_GetSandbox_FullMethodName:      "sandbox: TestGetListAwait",
	cretov1.SandboxService_AwaitSandbox_FullMethodName:    "sandbox: TestGetListAwait",
}

// asOfWhen holds what an answer says it was read from against what every answer must say.
func asOfWhen(t *testing.T, what string, read *cretov1.ReadInfo, linearizable bool) {
	t.Helper()
	if read.GetTreeSize() == 0 || read.GetTimeNs() == 0 || read.GetTimeQuality() == "" || read.GetNodeId() == "" || read.GetLinearizable() != linearizable {
		t.Errorf("%s: got read %v, want size, time, its quality, the node, and linearizable %t", what, read, linearizable)
	}
}

// Every read says whether it is linearizable, and as of which index and time.
func TestEveryReadSaysAsOfWhen(t *testing.T) {
	c := startDev(t, DevConfig{Nodes: 1})
	cc, admin := c.dial(0, c.ReadToken, false), c.dial(0, "", true)
	service, key := c.register(cc, registry.Service)
	c.submit(cc, key, c.usage(service, 3))
	human, humanKey := c.register(cc, registry.Human)
	agent, agentKey := c.register(cc, registry.Agent)
	link := c.delegate(cc, human, humanKey, agent, agentKey)
	for method := range methods {
		if notReads[method] || strings.HasPrefix(method, "/grpc.") {
			continue
		}
		service, name, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service + "." + name))
		if err != nil {
			t.Fatal(err)
		}
		md := d.(protoreflect.MethodDescriptor)
		field := md.Output().Fields().ByName("read")
		if field == nil || field.Message() == nil || field.Message().Name() != "ReadInfo" {
			t.Errorf("%s: its answer has no read of type ReadInfo", method)
			continue
		}
		if needsMore[method] != "" {
			continue
		}
		req := dynamicpb.NewMessage(md.Input())
		for field, v := range map[protoreflect.Name]any{
			"tenant": c.Tenant[:], "id": c.Authority[:], "key_id": bytesOf(c.AuthorityKey.Public().ID()), "wait": true, "from_size": uint64(1), "to_size": uint64(2),
			"account": c.Tenant[:], "from_time_ns": int64(1), "to_time_ns": time.Now().UnixNano(),
		} {
			if f := md.Input().Fields().ByName(field); f != nil {
				req.Set(f, protoreflect.ValueOf(v))
			}
		}
		switch fields := md.Input().Fields(); method {
		case cretov1.IdentityService_GetChain_FullMethodName:
			req.Set(fields.ByName("link_id"), protoreflect.ValueOfBytes(link[:]))
		case cretov1.LedgerService_Export_FullMethodName:
			req.Clear(fields.ByName("to_time_ns"))
		}
		conn := cc
		if methods[method] == accessOperator {
			conn = admin
		}
		resp, err := readOnce(t, conn, md, method, req)
		if err != nil {
			t.Errorf("%s: %v", method, err)
			continue
		}
		raw, err := proto.Marshal(resp.Get(field).Message().Interface())
		if err != nil {
			t.Fatal(err)
		}
		read := new(cretov1.ReadInfo)
		if err := proto.Unmarshal(raw, read); err != nil {
			t.Fatal(err)
		}
		stale := method == cretov1.ClusterService_Status_FullMethodName || method == cretov1.LedgerService_GetTrust_FullMethodName ||
			method == cretov1.EventService_TailEvents_FullMethodName
		asOfWhen(t, method, read, !stale)
	}
}

func bytesOf[T ~[32]byte](b T) []byte { return b[:] }

// readOnce returns the first answer of a method.
func readOnce(t *testing.T, cc *grpc.ClientConn, md protoreflect.MethodDescriptor, method string, req *dynamicpb.Message) (*dynamicpb.Message, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	resp := dynamicpb.NewMessage(md.Output())
	if !md.IsStreamingServer() {
		return resp, cc.Invoke(ctx, method, req, resp)
	}
	if f := md.Input().Fields().ByName("filter"); f != nil {
		filter := dynamicpb.NewMessage(f.Message())
		filter.Set(f.Message().Fields().ByName("from_index"), protoreflect.ValueOfUint64(1))
		req.Set(f, protoreflect.ValueOfMessage(filter))
	}
	s, err := cc.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, method)
	if err != nil {
		return nil, err
	}
	if err := s.SendMsg(req); err != nil {
		return nil, err
	}
	if err := s.CloseSend(); err != nil {
		return nil, err
	}
	return resp, s.RecvMsg(resp)
}
