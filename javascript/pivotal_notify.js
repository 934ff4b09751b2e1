// While a run is in progress: step and percent in the browser tab's title. When it has ended: a notification, if the
// user has asked for it. Notifications exist on https and on this machine only; the permission is asked by a click.
(function() {
    "use strict";

    const WANTED = "pivotal_notify";
    let title = null; // the page's own, while ours stands in its place
    let was = null; // the run of the last beat

    function possible() {
        return "Notification" in window && window.isSecureContext;
    }

    function wanted() {
        return possible() && Notification.permission === "granted" && localStorage.getItem(WANTED) === "1";
    }

    // ---- the button ----

    function show() {
        const button = window.pivotalPage.find("notify")?.querySelector("[data-notify]");
        if (!button) return;
        const on = wanted();
        button.hidden = false;
        button.disabled = !possible() || Notification.permission === "denied";
        button.classList.toggle("on", on);
        button.setAttribute("aria-pressed", String(on));
        button.textContent = on ? "✓ Notifies at the end of a run" : "Notify me at the end of a run";
        if (!possible()) button.title = "The browser has notifications on https and on this machine only.";
        else if (button.disabled) button.title = "The browser blocks notifications of this page: allow them in its settings.";
        else button.title = "A desktop notification at the end of a run, also while you look at another tab.";
    }

    async function toggle() {
        if (wanted()) localStorage.removeItem(WANTED);
        else if (await Notification.requestPermission() === "granted") localStorage.setItem(WANTED, "1");
        show();
    }

    function notify(text, run) {
        if (!wanted()) return;
        try {
            const note = new Notification("Pivotal tuning", {body: text, tag: "pivotal-" + run});
            note.onclick = () => {
                window.focus();
                note.close();
            };
        } catch (error) { // phones have them for installed pages only
            localStorage.removeItem(WANTED);
            show();
        }
    }

    // ---- the title ----

    function setTitle(text) {
        title ??= document.title;
        document.title = text ? `${text} · ${title}` : title;
        if (!text) title = null;
    }

    function beat() {
        const now = window.pivotalPage.data("beat")?.run;
        if (!now) return;
        if (was?.active && (was.id !== now.id || !now.active)) {
            notify(was.id === now.id ? now.said : `${was.name} is over. ${now.said}`, was.id);
        }
        if (now.active) setTitle(now.title);
        else if (was?.active && document.hidden) setTitle(now.title); // until it is looked at
        else if (title !== null && !document.hidden) setTitle("");
        was = now;
    }

    function looked() {
        if (!document.hidden && was && !was.active && title !== null) setTitle("");
    }

    function start() {
        const page = window.pivotalPage;
        if (!page?.find("beat")) return void setTimeout(start, 200);
        page.clicks.push(["[data-notify]", toggle]);
        page.watch("beat", beat);
        document.addEventListener("visibilitychange", looked);
        show();
        beat();
    }

    start();
})();
