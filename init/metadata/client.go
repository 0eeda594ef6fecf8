package metadata

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds of one exchange.
const (
	MaxBody   = 4 << 20 // as large as a document of any other source
	maxHeader = 64 << 10
	timeout   = 10 * time.Second
	secure    = 30 * time.Second // the same by https: a program is started from a cold disk first
	redirects = 4
)

// ErrNotFound says that the service answered and has no such document.
var ErrNotFound = errors.New("not found")

// ErrFinal marks errors that another attempt would not change.
var ErrFinal = errors.New("asking again would not help")

// Client asks metadata services. The zero value asks over the network.
type Client struct {
	// Dial connects; nil means the network. Tests lead it to a server of theirs.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Secure makes a TLS connection to HOST:PORT; nil means that https addresses
	// are refused. This package links no TLS.
	Secure func(ctx context.Context, address string) (net.Conn, error)
}

// Request is one question.
type Request struct {
	Method string // GET where empty
	URL    string
	Host   string            // of the Host header, where it is not the URL's
	Header map[string]string // in canonical form
	Body   []byte
}

// Answer is what came back.
type Answer struct {
	Status int
	Header textproto.MIMEHeader
	Body   []byte
}

// Get returns a document, or ErrNotFound.
func (c *Client) Get(ctx context.Context, address string, header map[string]string) ([]byte, error) {
	a, err := c.Do(ctx, Request{URL: address, Header: header})
	return a.Body, err
}

// Do makes one exchange. An answer that is no success is an error.
func (c *Client) Do(ctx context.Context, r Request) (Answer, error) {
	if r.Method == "" {
		r.Method = "GET"
	}
	for range redirects {
		u, err := c.target(r.URL)
		if err != nil {
			return Answer{}, fmt.Errorf("%s %s: %w: %w", r.Method, shown(r.URL), err, ErrFinal)
		}
		a, err := c.exchange(ctx, u, r)
		if err != nil {
			return Answer{}, fmt.Errorf("%s %s: %w", r.Method, shown(r.URL), err)
		}
		to := a.Header.Get("Location")
		if !slices.Contains([]int{301, 302, 303, 307, 308}, a.Status) || to == "" || r.Method != "GET" {
			return a, a.failure(r)
		}
		next, err := u.Parse(to)
		if err != nil {
			return Answer{}, fmt.Errorf("GET %s: is moved to %.200q, which is no address: %w", shown(r.URL), to, ErrFinal)
		}
		if u.Scheme == "https" && next.Scheme != "https" {
			return Answer{}, fmt.Errorf("GET %s: is moved to %s, which is not https: %w", shown(r.URL), shown(next.String()), ErrFinal)
		}
		r.URL, r.Host = next.String(), ""
	}
	return Answer{}, fmt.Errorf("%s %s: is moved from address to address: %w", r.Method, shown(r.URL), ErrFinal)
}

// failure turns a status into an error. What a client did wrong stays wrong;
// a service that is late or busy is asked again (RFC 9110 15.5, 15.6).
func (a Answer) failure(r Request) error {
	switch {
	case a.Status >= 200 && a.Status < 300:
		return nil
	case a.Status == 404:
		return fmt.Errorf("%s %s: %w", r.Method, shown(r.URL), ErrNotFound)
	case a.Status >= 300 && a.Status < 500 && !slices.Contains([]int{408, 410, 425, 429}, a.Status):
		return fmt.Errorf("%s %s: refused with status %d: %w", r.Method, shown(r.URL), a.Status, ErrFinal)
	}
	return fmt.Errorf("%s %s: status %d", r.Method, shown(r.URL), a.Status)
}

// target checks an address.
func (c *Client) target(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Hostname() == "":
		return nil, errors.New("is no address of a document")
	case u.Scheme == "https" && c.Secure == nil:
		return nil, errors.New("https is not spoken here")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("%.20q is not spoken; use https, or http inside a network that you trust", u.Scheme)
	}
	return u, nil
}

// shown is an address without what may be secret in it.
func shown(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "address"
	}
	return u.Scheme + "://" + u.Host + u.EscapedPath()
}

func (c *Client) exchange(ctx context.Context, u *url.URL, r Request) (Answer, error) {
	limit := timeout
	if u.Scheme == "https" {
		limit = secure
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	conn, err := c.connect(ctx, u)
	if err != nil {
		return Answer{}, late(ctx, limit, plain(err))
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })() // ends reads and writes
	if _, err := conn.Write(render(u, r)); err != nil {
		return Answer{}, late(ctx, limit, err)
	}
	a, err := parseAnswer(conn)
	if err != nil {
		return Answer{}, late(ctx, limit, err)
	}
	return a, nil
}

func (c *Client) connect(ctx context.Context, u *url.URL) (net.Conn, error) {
	port := u.Port()
	if u.Scheme == "https" {
		if port == "" {
			port = "443"
		}
		return c.Secure(ctx, net.JoinHostPort(u.Hostname(), port))
	}
	if port == "" {
		port = "80"
	}
	dial := c.Dial
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	return dial(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
}

// late says why a connection was closed by the time limit.
func late(ctx context.Context, limit time.Duration, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("no whole answer within %s", limit)
	}
	return err
}

// plain takes the addresses off an error of the network: the message has them.
func plain(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		for _, known := range []error{unix.ECONNREFUSED, unix.ENETUNREACH, unix.EHOSTUNREACH, unix.ETIMEDOUT} {
			if errors.Is(op.Err, known) {
				return known
			}
		}
	}
	return err
}

// render makes the request (RFC 9112 3).
func render(u *url.URL, r Request) []byte {
	host := r.Host
	if host == "" {
		host = u.Host
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nUser-Agent: keelson\r\n", r.Method, u.RequestURI(), host)
	names := make([]string, 0, len(r.Header))
	for name := range r.Header {
		names = append(names, name)
	}
	slices.Sort(names)
	clean := strings.NewReplacer("\r", "", "\n", "") // values may come from a service
	for _, name := range names {
		fmt.Fprintf(&b, "%s: %s\r\n", name, clean.Replace(r.Header[name]))
	}
	if r.Body != nil || r.Method == "PUT" || r.Method == "POST" {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(r.Body))
	}
	b.WriteString("\r\n")
	b.Write(r.Body)
	return b.Bytes()
}

// parseAnswer reads status line, header and body (RFC 9112 4 to 7).
func parseAnswer(conn io.Reader) (Answer, error) {
	in := bufio.NewReader(conn)
	head := textproto.NewReader(bufio.NewReader(&headerReader{in: in, left: maxHeader}))
	line, err := head.ReadLine()
	if err != nil {
		return Answer{}, fmt.Errorf("no answer: %w", err)
	}
	version, rest, _ := strings.Cut(line, " ")
	code, _, _ := strings.Cut(rest, " ")
	status, err := strconv.Atoi(code)
	if !strings.HasPrefix(version, "HTTP/1.") || err != nil || len(code) != 3 || status < 200 {
		return Answer{}, fmt.Errorf("answered with %.40q, which is not HTTP", line)
	}
	header, err := head.ReadMIMEHeader()
	if err != nil {
		return Answer{}, fmt.Errorf("header of the answer: %w", err)
	}
	a := Answer{Status: status, Header: header}
	a.Body, err = body(in, status, header)
	return a, err
}

func body(in *bufio.Reader, status int, header textproto.MIMEHeader) ([]byte, error) {
	var r io.Reader = in
	want := int64(-1)
	switch coding := header.Get("Transfer-Encoding"); {
	case status == 204 || status == 304:
		return nil, nil
	case strings.EqualFold(coding, "chunked"):
		r = &chunks{in: in}
	case coding != "":
		return nil, fmt.Errorf("transfer encoding %.40q is not known", coding)
	case header.Get("Content-Length") != "":
		n, err := strconv.ParseUint(header.Get("Content-Length"), 10, 63)
		if err != nil {
			return nil, fmt.Errorf("content length %.40q is no number", header.Get("Content-Length"))
		}
		want = int64(n)
		r = io.LimitReader(in, want)
	}
	data, err := io.ReadAll(io.LimitReader(r, MaxBody+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("body of the answer: %w", err)
	case len(data) > MaxBody:
		return nil, fmt.Errorf("is larger than %d MiB; make it smaller: %w", MaxBody>>20, ErrFinal)
	case want >= 0 && int64(len(data)) < want:
		return nil, fmt.Errorf("body of the answer: %d bytes of %d: %w", len(data), want, io.ErrUnexpectedEOF)
	}
	return data, nil
}

// headerReader hands out the header a line at a time, so that nothing of the
// body is taken, and ends it at a bound.
type headerReader struct {
	in   *bufio.Reader
	line []byte
	left int
}

func (h *headerReader) Read(p []byte) (int, error) {
	if len(h.line) == 0 {
		line, err := h.in.ReadSlice('\n')
		if h.left -= len(line); h.left < 0 || errors.Is(err, bufio.ErrBufferFull) {
			return 0, errors.New("is too long")
		}
		if len(line) == 0 {
			return 0, err
		}
		h.line = line
	}
	n := copy(p, h.line)
	h.line = h.line[n:]
	return n, nil
}

// chunks undoes the chunked transfer coding (RFC 9112 7.1).
type chunks struct {
	in   *bufio.Reader
	left int64
	done bool
}

func (c *chunks) Read(p []byte) (int, error) {
	if c.done {
		return 0, io.EOF
	}
	if c.left == 0 {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return 0, unexpected(err)
		}
		size, _, _ := strings.Cut(strings.TrimRight(string(line), "\r\n"), ";")
		n, err := strconv.ParseUint(strings.TrimSpace(size), 16, 31)
		if err != nil {
			return 0, fmt.Errorf("%.20q is no size of a chunk", size)
		}
		if n == 0 {
			c.done = true // what follows are trailers, of no use here
			return 0, io.EOF
		}
		c.left = int64(n)
	}
	n, err := c.in.Read(p[:min(int64(len(p)), c.left)])
	if c.left -= int64(n); c.left == 0 && err == nil {
		var end [2]byte
		if _, err := io.ReadFull(c.in, end[:]); err != nil || end != [2]byte{'\r', '\n'} {
			return n, errors.New("a chunk does not end where it says")
		}
	}
	return n, unexpected(err)
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
