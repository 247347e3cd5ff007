export default function ({ data }) {
  const address = new URL(window.location.href);
  for (const name of data.without) address.searchParams.delete(name);
  for (const [name, value] of Object.entries(data.names)) address.searchParams.set(name, value);
  if (address.href !== window.location.href) window.history.replaceState({}, "", address);
}
