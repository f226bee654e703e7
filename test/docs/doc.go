// Package docs holds the documentation against the repository: every promise of the README has something that shows it,
// and every link of a page leads to a file and a heading that exist.
//
// It is tests only. What the README tells a reader to type is run by tools/readme.sh, as written.
package docs
