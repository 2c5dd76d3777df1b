// Pictures at an integer zoom, all showing the same part: k device pixels per image pixel.
const MAX_ZOOM = 64;

export class View {
  // panels: the grid; views: the boxes that clip; report(k): told the zoom after every change
  constructor(panels, report) {
    this.panels = panels;
    this.report = report;
    this.size = 64;
    this.k = this.fitted = 1;
    this.x = this.y = 0; // image pixel at the centre of the box
    this.pointers = new Map();
    new ResizeObserver(() => this.layout()).observe(panels);
    for (const view of panels.querySelectorAll('.view')) this.listen(view);
  }

  // A new picture of `size` px: show all of it.
  reset(size) {
    this.size = size;
    this.layout();
  }

  // The largest integer zoom at which every panel shows its whole picture.
  layout() {
    const shown = [...this.panels.children].filter((panel) => !panel.hidden);
    const style = getComputedStyle(this.panels);
    const columns = style.gridTemplateColumns.split(' ').length;
    const rows = columns < shown.length ? 2 : 1;
    const gap = parseFloat(style.rowGap) || 0;
    const caption = shown[0].firstElementChild.offsetHeight;
    const width = (this.panels.clientWidth - gap * (columns - 1)) / columns;
    const height = (this.panels.clientHeight - gap * (rows - 1)) / rows - caption;
    this.ratio = window.devicePixelRatio || 1;
    this.fitted = Math.max(1, Math.floor((Math.min(width, height) * this.ratio) / this.size));
    this.box = this.fitted * this.size; // device pixels
    const views = [...this.panels.querySelectorAll('.view')];
    for (const view of views) {
      view.style.left = view.style.top = '0';
      view.style.width = view.style.height = `${this.box / this.ratio}px`;
    }
    for (const view of views) this.snap(view);
    this.fit();
  }

  // Start on a whole device pixel, or the browser resamples the edges of the image pixels.
  snap(view) {
    const { left, top } = view.getBoundingClientRect();
    const off = (x) => (Math.round(x * this.ratio) / this.ratio - x);
    Object.assign(view.style, { left: `${off(left)}px`, top: `${off(top)}px` });
  }

  fit() {
    this.x = this.y = this.size / 2;
    this.zoomTo(this.fitted);
  }

  // Zoom to k, so that the image pixel under (fx, fy), fractions of the box, stays where it is.
  zoomTo(k, fx = 0.5, fy = 0.5) {
    const next = Math.min(Math.max(Math.round(k), 1), Math.max(MAX_ZOOM, this.fitted));
    this.x += (fx - 0.5) * this.box * (1 / this.k - 1 / next);
    this.y += (fy - 0.5) * this.box * (1 / this.k - 1 / next);
    this.k = next;
    this.draw();
  }

  step(direction, fx, fy) {
    const faster = Math.max(1, Math.round(this.k / 4));
    this.zoomTo(this.k + direction * faster, fx, fy);
  }

  // Move by CSS pixels.
  pan(dx, dy) {
    this.x -= (dx * this.ratio) / this.k;
    this.y -= (dy * this.ratio) / this.k;
    this.draw();
  }

  draw() {
    const half = Math.min(this.box / this.k / 2, this.size / 2); // no border comes into the box
    this.x = Math.min(Math.max(this.x, half), this.size - half);
    this.y = Math.min(Math.max(this.y, half), this.size - half);
    const left = Math.round(this.box / 2 - this.x * this.k) / this.ratio;
    const top = Math.round(this.box / 2 - this.y * this.k) / this.ratio;
    const side = (this.size * this.k) / this.ratio;
    for (const image of this.panels.querySelectorAll('.view img')) {
      Object.assign(image.style, {
        left: `${left}px`, top: `${top}px`, width: `${side}px`, height: `${side}px`,
      });
    }
    this.report(this.k);
  }

  listen(view) {
    const fraction = (event) => {
      const box = view.getBoundingClientRect();
      return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    };
    view.addEventListener('wheel', (event) => {
      event.preventDefault();
      if (event.deltaY) this.step(event.deltaY < 0 ? 1 : -1, ...fraction(event));
    }, { passive: false });
    view.addEventListener('pointerdown', (event) => {
      view.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, event);
      this.pinch = null;
    });
    view.addEventListener('pointermove', (event) => {
      const before = this.pointers.get(event.pointerId);
      if (!before) return;
      this.pointers.set(event.pointerId, event);
      if (this.pointers.size === 1) {
        this.pan(event.clientX - before.clientX, event.clientY - before.clientY);
      } else {
        const [p, q] = this.pointers.values();
        const distance = Math.hypot(p.clientX - q.clientX, p.clientY - q.clientY);
        this.pinch ??= { distance, k: this.k };
        this.zoomTo((this.pinch.k * distance) / this.pinch.distance);
      }
    });
    for (const end of ['pointerup', 'pointercancel', 'lostpointercapture']) {
      view.addEventListener(end, (event) => {
        this.pointers.delete(event.pointerId);
        this.pinch = null;
      });
    }
  }
}
