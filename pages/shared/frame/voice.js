const heard = new WeakMap(); // mount → how often something was said

export default function ({ data, parentElement }) {
  const status = parentElement.querySelector("[role=status]");
  const before = heard.get(parentElement);
  heard.set(parentElement, data.count);
  if (before === undefined || before === data.count) return; // a page that is opened says nothing
  // The button that was pressed may be gone: the keyboard goes on from here.
  const lost = document.activeElement === document.body;
  status.textContent = data.text;
  if (lost) status.focus({ preventScroll: true });
  if (!data.look || status.getBoundingClientRect().top < 0.8 * window.innerHeight) return;
  const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  status.scrollIntoView({ block: "start", behavior: still ? "auto" : "smooth" });
}
