// Package demo runs the demonstration as a user does, as processes of the real binary, and looks at what it leaves behind.
//
// It is tests only.
package demo
