// Binds a media element to a session's slot: nothing plays without one.

/** A pause by us is not a pause by the person. */
export function attach(session, video) {
  const { document } = globalThis;
  // What the person wants, as opposed to what the slot allows.
  let wanted = !video.paused;

  const tell = (now = false) => {
    const inPicture = document?.pictureInPictureElement === video;
    let state = "playing";
    if (video.paused) state = "paused";
    else if (video.readyState < 3 || video.seeking) state = "buffering";
    else if (document?.hidden && !inPicture) state = "background";
    session.report({ state, positionMs: video.currentTime * 1000, now });
  };
  // Also where it is paused: a browser that paused a muted video in a hidden tab would start it again by itself.
  const hold = () => video.pause();
  // Without word from the browser a play is the person's.
  const isPerson = () => globalThis.navigator?.userActivation?.isActive ?? true;
  const listeners = {
    play() {
      // After an end only a person starts anew, or the application, which calls start().
      if (session.state === "ended" && !isPerson()) return hold();
      wanted = true;
      if (session.holdsSlot) return tell();
      hold();
      session.start();
    },
    pause() {
      // At the end of the video `pause` comes before `ended`.
      if (video.ended || !session.holdsSlot) return;
      wanted = false;
      tell();
    },
    playing: () => tell(),
    waiting: () => tell(),
    timeupdate: () => tell(),
    seeked: () => tell(true),
    ended() {
      wanted = false;
      session.stop();
    },
  };
  const onGranted = () => {
    if (wanted && video.paused) {
      // A browser may want a click first: the application shows its play button on `paused`.
      Promise.resolve(video.play()).catch(({ name }) => { if (name === "NotAllowedError") wanted = false; });
    }
    tell();
  };
  const onHidden = () => tell();
  const onEnded = () => { hold(); wanted = false; };

  for (const [type, listener] of Object.entries(listeners)) video.addEventListener(type, listener);
  session.addEventListener("granted", onGranted);
  session.addEventListener("lost", hold);
  session.addEventListener("ended", onEnded);
  document?.addEventListener("visibilitychange", onHidden);
  if (wanted) listeners.play();

  return () => {
    for (const [type, listener] of Object.entries(listeners)) video.removeEventListener(type, listener);
    session.removeEventListener("granted", onGranted);
    session.removeEventListener("lost", hold);
    session.removeEventListener("ended", onEnded);
    document?.removeEventListener("visibilitychange", onHidden);
  };
}
