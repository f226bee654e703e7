// Package badinput holds the test that sends three real nodes what nobody should: each input is answered with a typed error,
// changes nothing, loses nothing, and stops nobody.
package badinput
