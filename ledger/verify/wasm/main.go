//go:build js && wasm

// Command wasm is ledger/verify for a browser. Loaded with the Go runtime's wasm_exec.js it defines one global function:
//
//	cretoVerify(file: Uint8Array, trust: string) → string
//
// The result is the JSON of a verify.Report; its "ok" says whether everything held. A trust file that cannot be read gives
// {"ok": false, "failure": {…}} as well. The browser's clock is used for nothing.
package main

import (
	"bytes"
	"encoding/json"
	"syscall/js"

	"github.com/creto-systems/creto/ledger/verify"
)

func main() {
	js.Global().Set("cretoVerify", js.FuncOf(cretoVerify))
	select {} // the function stays callable as long as the page lives
}

func cretoVerify(_ js.Value, args []js.Value) any {
	if len(args) != 2 || args[0].Type() != js.TypeObject || args[1].Type() != js.TypeString {
		return failure("call cretoVerify(Uint8Array, string)")
	}
	if !args[0].InstanceOf(js.Global().Get("Uint8Array")) {
		return failure("the file is not a Uint8Array")
	}
	file := make([]byte, args[0].Length())
	js.CopyBytesToGo(file, args[0])
	trust, err := verify.ParseTrust([]byte(args[1].String()))
	if err != nil {
		return failure(err.Error())
	}
	report, _ := verify.VerifyAny(bytes.NewReader(file), trust, verify.Options{}) // the failure stands in the report
	return encode(report)
}

func failure(detail string) string {
	return encode(&verify.Report{
		Kind: verify.KindUnknown, Steps: []verify.Step{}, Statement: []string{}, NotProved: []string{}, Keys: []verify.KeyUse{},
		Failure: &verify.Failure{Step: "trust", Class: verify.ClassMalformed, ExitCode: verify.ExitMalformed, Detail: detail},
	})
}

func encode(r *verify.Report) string {
	b, err := json.Marshal(r)
	if err != nil {
		return `{"ok":false}`
	}
	return string(b)
}
