// Package chart draws figures of line charts as SVG that a reader's light or dark
// mode colours: several panels under one legend, with axes that are linear or
// logarithmic. What a line is shows by its colour and by the shape of its marks.
package chart

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"math"
	"slices"
)

// A Figure is panels beside and below one another.
type Figure struct {
	Title string
	// Note, if set, is a smaller line under the title.
	Note   string
	Panels []Panel
	// Columns is how many panels there are in a row.
	Columns int
}

// A Panel is one chart. Lines of the same name are the same in all panels.
type Panel struct {
	Title string // what y is, with its unit
	X, Y  Axis
	Lines []Line
}

// An Axis begins at 0 if it is linear. A logarithmic one shows what is above 0.
type Axis struct {
	Label string // of x alone; that of y is the title
	Log   bool
	// Most, if set, is shown whether or not a value is as great.
	Most float64
}

// A Line connects points, which are in the order of their X.
type Line struct {
	Name   string
	Points []Point
}

// A Point is one measurement.
type Point struct{ X, Y float64 }

// Sizes in the units of the figure, which are pixels at its natural size.
const (
	width       = 960.0
	panelHeight = 270.0
	header      = 84.0 // title, note and legend
	footer      = 12.0

	left, right, top, bottom = 58.0, 18.0, 36.0, 48.0 // around the plot of a panel

	textWidth = 7.2 // about that of a character in the legend
)

const style = `<style>
text{font:12px system-ui,-apple-system,"Segoe UI",Helvetica,Arial,sans-serif;fill:#57606a}
.back{fill:#ffffff}.title{font-size:17px;font-weight:600;fill:#1f2328}.head{font-weight:600;fill:#1f2328}
.grid{stroke:#e4e8ec}.axis{stroke:#8c959f}.line{fill:none;stroke-width:2;stroke-linejoin:round}
.s0{stroke:#0a66c2}.f0{fill:#0a66c2}.s1{stroke:#bf5700}.f1{fill:#bf5700}
.s2{stroke:#7d4cdb}.f2{fill:#7d4cdb}.s3{stroke:#1a7f37}.f3{fill:#1a7f37}
@media (prefers-color-scheme:dark){
text{fill:#9ba5b0}.back{fill:#0d1117}.title,.head{fill:#e6edf3}.grid{stroke:#252c35}.axis{stroke:#6e7681}
.s0{stroke:#58a6ff}.f0{fill:#58a6ff}.s1{stroke:#f0883e}.f1{fill:#f0883e}
.s2{stroke:#bc8cff}.f2{fill:#bc8cff}.s3{stroke:#3fb950}.f3{fill:#3fb950}
}</style>
`

// looks is how many lines can be told apart.
const looks = 4

// SVG draws the figure.
func (f *Figure) SVG() []byte {
	rows := (len(f.Panels) + f.Columns - 1) / f.Columns
	height := header + float64(rows)*panelHeight + footer
	d := &drawing{}
	d.printf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" width="%g" height="%g" role="img">`+"\n", width, height, width, height)
	d.printf("<title>%s</title>\n%s", escape(f.Title), style)
	d.printf(`<rect class="back" width="%g" height="%g" rx="8"/>`+"\n", width, height)
	d.text(20, 30, "title", "start", f.Title)
	d.text(20, 50, "", "start", f.Note)
	f.legend(d)
	for i, p := range f.Panels {
		w := width / float64(f.Columns)
		d.printf(`<g transform="translate(%.1f %.1f)">`+"\n", float64(i%f.Columns)*w, header+float64(i/f.Columns)*panelHeight)
		p.draw(d, w, f.look)
		d.printf("</g>\n")
	}
	d.printf("</svg>\n")
	return d.Bytes()
}

// names are those of all lines, in the order in which they come.
func (f *Figure) names() (names []string) {
	for _, p := range f.Panels {
		for _, l := range p.Lines {
			if !slices.Contains(names, l.Name) {
				names = append(names, l.Name)
			}
		}
	}
	return names
}

// look is the number of a line's colour and mark.
func (f *Figure) look(name string) int { return slices.Index(f.names(), name) % looks }

func (f *Figure) legend(d *drawing) {
	x := 20.0
	const y = 70.0
	for _, name := range f.names() {
		look := f.look(name)
		d.printf(`<path class="line s%d" d="M%.1f %.1fh26"/>`+"\n", look, x, y)
		d.mark(look, x+13, y)
		d.text(x+33, y+4, "head", "start", name)
		x += 33 + textWidth*float64(len([]rune(name))) + 24
	}
}

// draw draws a panel whose upper left corner is at 0, 0.
func (p *Panel) draw(d *drawing, w float64, look func(string) int) {
	xs := newScale(p.X, p.values(func(q Point) float64 { return q.X }), left, w-right)
	ys := newScale(p.Y, p.values(func(q Point) float64 { return q.Y }), panelHeight-bottom, top)
	d.text(left-44, top-14, "head", "start", p.Title)
	for _, t := range ys.ticks {
		y := ys.at(t)
		d.printf(`<path class="grid" d="M%.1f %.1fH%.1f"/>`+"\n", left, y, w-right)
		d.text(left-7, y+4, "", "end", number(t))
	}
	for _, t := range xs.ticks {
		x := xs.at(t)
		d.printf(`<path class="axis" d="M%.1f %.1fv5"/>`+"\n", x, panelHeight-bottom)
		d.text(x, panelHeight-bottom+18, "", "middle", number(t))
	}
	d.printf(`<path class="axis" d="M%.1f %.1fH%.1f"/>`+"\n", left, panelHeight-bottom, w-right)
	d.text((left+w-right)/2, panelHeight-bottom+36, "", "middle", p.X.Label)
	for _, l := range p.Lines {
		l.draw(d, xs, ys, look(l.Name))
	}
}

func (l *Line) draw(d *drawing, xs, ys *scale, look int) {
	var path string
	for _, q := range l.Points {
		if !xs.shows(q.X) || !ys.shows(q.Y) {
			continue
		}
		if path == "" {
			path = "M"
		} else {
			path += "L"
		}
		path += fmt.Sprintf("%.1f %.1f", xs.at(q.X), ys.at(q.Y))
		d.mark(look, xs.at(q.X), ys.at(q.Y))
	}
	if path != "" {
		d.printf(`<path class="line s%d" d="%s"/>`+"\n", look, path)
	}
}

func (p *Panel) values(of func(Point) float64) (values []float64) {
	for _, l := range p.Lines {
		for _, q := range l.Points {
			values = append(values, of(q))
		}
	}
	return values
}

// A scale maps values to places from begin to end.
type scale struct {
	log        bool
	least      float64
	most       float64
	begin, end float64
	ticks      []float64
}

func newScale(a Axis, values []float64, begin, end float64) *scale {
	s := &scale{log: a.Log, begin: begin, end: end}
	values = slices.DeleteFunc(slices.Clone(values), func(v float64) bool { return !s.shows(v) })
	if len(values) == 0 {
		values = []float64{1}
	}
	if a.Log {
		s.logarithmic(slices.Min(values), slices.Max(values))
	} else {
		s.linear(max(a.Most, slices.Max(values)))
	}
	return s
}

// shows says whether there is a place for a value.
func (s *scale) shows(v float64) bool {
	return !math.IsNaN(v) && !math.IsInf(v, 0) && v >= 0 && (!s.log || v > 0)
}

// linear goes from 0 to the first tick that is not below the greatest value.
func (s *scale) linear(most float64) {
	const about = 5
	if most <= 0 {
		most = 1
	}
	power := math.Pow(10, math.Floor(math.Log10(most/about)))
	step := 10 * power
	for _, m := range []float64{5, 2, 1} {
		if m*power >= 0.8*most/about {
			step = m * power
		}
	}
	s.most = math.Ceil(most/step-1e-9) * step
	for i := 0; float64(i)*step <= s.most*(1+1e-9); i++ {
		s.ticks = append(s.ticks, float64(i)*step)
	}
}

// logarithmic goes from tick to tick around the values: powers of ten, and if these
// are few, twice and five times as much as well.
func (s *scale) logarithmic(least, most float64) {
	steps := []float64{1}
	if math.Log10(most/least) < 2.5 {
		steps = []float64{1, 2, 5}
	}
	var all []float64
	for e := math.Floor(math.Log10(least)) - 1; e <= math.Ceil(math.Log10(most))+1; e++ {
		for _, m := range steps {
			all = append(all, m*math.Pow(10, e))
		}
	}
	first := len(all) - 1
	for first > 0 && all[first] > least*(1+1e-9) {
		first--
	}
	last := first + 1
	for last < len(all)-1 && all[last] < most*(1-1e-9) {
		last++
	}
	s.ticks, s.least, s.most = all[first:last+1], all[first], all[last]
}

// at is the place of a value.
func (s *scale) at(v float64) float64 {
	part := v / s.most
	if s.log {
		part = math.Log(v/s.least) / math.Log(s.most/s.least)
	}
	return s.begin + part*(s.end-s.begin)
}

// number shows a tick: 0.05, 20, 5k, 2M.
func number(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%.3gM", v/1e6)
	case v >= 1e3:
		return fmt.Sprintf("%.3gk", v/1e3)
	}
	return fmt.Sprintf("%.4g", v)
}

// A drawing is SVG on the way.
type drawing struct{ bytes.Buffer }

func (d *drawing) printf(format string, args ...any) { fmt.Fprintf(d, format, args...) }

func (d *drawing) text(x, y float64, class, anchor, text string) {
	if text == "" {
		return
	}
	if class != "" {
		class = ` class="` + class + `"`
	}
	d.printf(`<text x="%.1f" y="%.1f" text-anchor="%s"%s>%s</text>`+"\n", x, y, anchor, class, escape(text))
}

// mark draws a point: a circle, a square, a triangle or a diamond.
func (d *drawing) mark(look int, x, y float64) {
	switch look {
	case 0:
		d.printf(`<circle class="f0" cx="%.1f" cy="%.1f" r="3.6"/>`+"\n", x, y)
	case 1:
		d.printf(`<path class="f1" d="M%.1f %.1fh6.6v6.6h-6.6z"/>`+"\n", x-3.3, y-3.3)
	case 2:
		d.printf(`<path class="f2" d="M%.1f %.1fl4.4 7.6h-8.8z"/>`+"\n", x, y-4.8)
	default:
		d.printf(`<path class="f3" d="M%.1f %.1fl4.6 4.6l-4.6 4.6l-4.6 -4.6z"/>`+"\n", x, y-4.6)
	}
}

func escape(s string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(s)) // a buffer takes everything
	return b.String()
}
