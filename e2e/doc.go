// Package e2e holds scenarios that run the built program as its users do, and the test that keeps the tree as drawn.
// It refuses to touch anything but loopback and namespaces that it made itself.
package e2e
