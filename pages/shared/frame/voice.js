const heard = new WeakMap(); // mount → how often something was said
const MOST = 40;
const GOING = 3000; // milliseconds in which what was pressed may yet go
let focused = []; // what had the focus, the last one first

document.addEventListener("focusin", ({ target }) => {
  focused = [target, ...focused.filter((one) => one !== target && one.isConnected)].slice(0, MOST);
});

// A menu that was opened by a key: Streamlit's takes the focus only when no transition of the page is
// under way (react-aria's `focusSafely`), which after a walk by Tab may be never.
document.addEventListener("click", ({ target, detail }) => {
  if (detail === 0 && target.closest?.("[aria-haspopup=menu]")) enter(60);
});

function enter(frames) {
  const item = document.querySelector("[role=menu] [role=menuitem]");
  if (item) item.focus();
  else if (frames) requestAnimationFrame(() => enter(frames - 1));
}

// Where the keyboard goes on when what had its focus is gone, as a Cancel is with its job: to what
// had it before, which is the press that began the job or lies on the way from there.  What is told
// may be heard a moment before it goes.
function follow(status, until) {
  goOn(status);
  if (performance.now() < until) requestAnimationFrame(() => follow(status, until));
}

function goOn(status) {
  const [last] = focused;
  if (document.activeElement !== document.body) return;
  if (last?.isConnected && !last.disabled) return; // it was left on purpose
  const before = focused.find((one) => one.isConnected && !one.disabled && one !== status);
  (before ?? status).focus({ preventScroll: true });
}

export default function ({ data, parentElement }) {
  const status = parentElement.querySelector("[role=status]");
  const before = heard.get(parentElement);
  heard.set(parentElement, data.count);
  if (before === undefined || before === data.count) return; // a page that is opened says nothing
  status.textContent = data.text;
  follow(status, performance.now() + GOING);
  if (!data.look || status.getBoundingClientRect().top < 0.8 * window.innerHeight) return;
  const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  status.scrollIntoView({ block: "start", behavior: still ? "auto" : "smooth" });
}
